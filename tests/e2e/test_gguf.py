"""GGUF files as models of a recipe: the weights and settings of the folder that they were made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_toys import permute, read_values, write_gguf

import pymerge
from pymerge.checkpoint import open_checkpoint
from pymerge.config.values import ModelRef
from pymerge.errors import PymergeError
from pymerge.verify.values import Status

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3")


def merge(here: Path, *models: str, out: str = "out", **options: Any) -> dict[str, Any]:
    """The mean of models, in float32."""
    listed = [{"model": model, "parameters": {"weight": 1.0}} for model in models]
    pymerge.merge({"merge_method": "linear", "models": listed, "dtype": "float32"}, here / out, **options)
    return read_values(here / out)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_gives_the_weights_and_the_settings_of_its_folder(
    family: str, toy: Callable[..., Path], here: Path
) -> None:
    folder = toy(family)
    expected = write_gguf(folder, here / "model.gguf")
    merged = merge(here, "model.gguf")
    assert merged.keys() == expected.keys()
    for name, values in merged.items():
        assert np.array_equal(values, expected[name]), name
    config, made = (json.loads((path / "config.json").read_text()) for path in (folder, here / "out"))
    # What is built like Llama is called so in files.
    named = {} if family == "mistral" else {"architectures": config["architectures"], "model_type": family}
    kept = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "num_key_value_heads",
            "rms_norm_eps", "max_position_embeddings", "vocab_size", "tie_word_embeddings", "head_dim",
            "attn_logit_softcapping", "final_logit_softcapping", "hidden_activation", "hidden_act")  # fmt: skip
    said = named | {key: config[key] for key in kept if key in config and (key in made or key != "head_dim")}
    assert said.items() <= made.items()
    assert pymerge.verify(here / "out", sample=None).status is Status.PASSED


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "gemma2", "phi3"])
def test_a_merge_of_a_file_and_its_folder_computes_what_the_folder_does(
    family: str, toy: Callable[..., Path], here: Path
) -> None:
    import torch
    import transformers

    # Files do not say whether Qwen's window is used, nor by what Gemma's queries are divided.
    changes = {"qwen2": {"use_sliding_window": False}, "gemma2": {"query_pre_attn_scalar": 8}}.get(family, {})
    folder = toy(family, **changes)
    write_gguf(folder, here / "blob")
    # As caches of downloads have it.
    (here / "model.gguf").symlink_to("blob")
    # config.json from the file, which comes first.
    merge(here, "model.gguf", str(folder))
    ids = torch.arange(3, 23)[None]
    logits = [
        transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)(ids).logits
        for path in (folder, here / "out")
    ]
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "kind"), [("llama", "F16"), ("llama", "Q4_0"), ("qwen2", "BF16"), ("qwen2", "Q5_1")]
)
def test_blocks_are_dequantized(kind: str, family: str, toy: Callable[..., Path], here: Path) -> None:
    expected = write_gguf(toy(family, intermediate_size=64), here / "model.gguf", kind)
    for backend in ("cpu", "reference"):
        for name, values in merge(here, "model.gguf", out=backend, backend=backend).items():
            assert np.array_equal(values, expected[name]), name


def test_where_no_type_is_named_weights_take_that_of_the_file(toy: Callable[..., Path], here: Path) -> None:
    expected = write_gguf(toy("llama", intermediate_size=64), here / "model.gguf", "Q8_0")
    report = pymerge.merge({"merge_method": "passthrough", "models": [{"model": "model.gguf"}]}, here / "out")
    assert any("is a GGUF file (Q8_0, F32)" in warning for warning in report.warnings)
    values = read_values(here / "out")
    rounded = {name: array.view(np.uint32) & 0xFFFF == 0 for name, array in values.items()}
    # bfloat16, but for norms.
    assert all(bits.all() for name, bits in rounded.items() if values[name].ndim > 1)
    assert np.array_equal(values["model.norm.weight"], expected["model.norm.weight"])


def test_files_are_inspected_and_compared_as_folders_are(toy: Callable[..., Path], here: Path) -> None:
    from pymerge.output.inventory import take_inventory

    write_gguf(toy("llama"), here / "model.gguf")
    found, folder = take_inventory("model.gguf"), take_inventory(str(toy("llama")))
    assert [found[key] for key in ("architecture", "layers", "count", "parameters", "formats")] == [
        *(folder[key] for key in ("architecture", "layers", "count", "parameters")), ["gguf"],
    ]  # fmt: skip
    compared = pymerge.compare("model.gguf", str(toy("llama")))
    assert (compared.missing, compared.surplus) == ((), ())
    assert all(tensor.max_ulp == 0 for tensor in compared.tensors)


def write_positions(folder: Path, path: Path, factor: float) -> None:
    """A file of Llama 3.1's kind: factors of rotations are stored as a tensor."""
    import gguf

    write_gguf(folder, path)
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(path.with_suffix(".new"), "llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kind = field.types[0]
            writer.add_key_value(field.name, field.contents(), kind, field.types[-1] if len(field.types) > 1 else None)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data))
    # As its converter works them out.
    theta, width = 10000.0, 8
    values = []
    for frequency in 1.0 / theta ** (np.arange(0, width, 2, dtype=np.float32) / width):
        length = 2 * np.pi / frequency
        smooth = (8192 / length - 1.0) / (4.0 - 1.0)
        inside = 1 / ((1 - smooth) / factor + smooth)
        values.append(1.0 if length < 8192 / 4 else factor if length > 8192 else inside)
    writer.add_tensor("rope_freqs.weight", np.array(values, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path.with_suffix(".new").rename(path)


def test_factors_of_rotations_become_settings(toy: Callable[..., Path], here: Path) -> None:
    write_positions(toy("llama"), here / "model.gguf", 8.0)
    config = open_checkpoint(ModelRef("model.gguf")).config
    assert config["rope_scaling"] == {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip


def test_rows_are_put_back_whatever_the_number_of_heads() -> None:
    from pymerge.checkpoint.gguf import _part_pairs

    for heads, width in ((1, 2), (3, 8), (4, 6)):
        rows = np.arange(heads * width)[:, None]
        choice = _part_pairs(heads * width, width)
        assert np.array_equal(permute(rows, heads)[list(choice.rows)], rows)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"llama__attention__head_count": (5, "UINT32")}, "has 32 rows, and heads are 5"),
        ({"split__count": (3, "UINT16")}, "join them"),
        ({"llama__rope__scaling__type": ("su", "STRING")}, "scaled by 'su'"),
    ],
)
def test_what_cannot_be_mapped_is_refused_by_name(
    changes: dict[str, Any], says: str, toy: Callable[..., Path], here: Path
) -> None:
    import gguf

    # A setting that is given already is replaced.
    writer_changes = {key: (value, gguf.GGUFValueType[kind]) for key, (value, kind) in changes.items()}
    write_gguf(toy("llama"), here / "model.gguf", **writer_changes)
    with pytest.raises(PymergeError, match=says):
        merge(here, "model.gguf")


def test_families_that_are_not_known_are_refused_by_name(toy: Callable[..., Path], here: Path) -> None:
    content = write_and_read(toy("llama"), here / "model.gguf")
    size = (5).to_bytes(8, "little")
    (here / "other.gguf").write_bytes(content.replace(size + b"llama", size + b"mamba", 1))
    with pytest.raises(PymergeError, match="architecture is 'mamba', and known are llama"):
        merge(here, "other.gguf")
    (here / "odd.gguf").write_bytes(content.replace(b"blk.1.attn_v.", b"blk.1.attn_w."))
    with pytest.raises(PymergeError, match=r'"blk.1.attn_w.weight" is none that llama'):
        merge(here, "odd.gguf")
    with pytest.raises(PymergeError, match="there is no such file"):
        merge(here, "lacking.gguf")
    with pytest.raises(PymergeError, match="a GGUF file is a whole model"):
        pymerge.merge_files({"merge_method": "linear", "models": [
            {"model": "model.gguf", "parameters": {"weight": 1}}]}, out=here / "out.safetensors")  # fmt: skip


def write_and_read(folder: Path, path: Path) -> bytes:
    write_gguf(folder, path)
    return path.read_bytes()
