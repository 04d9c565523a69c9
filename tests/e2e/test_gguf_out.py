"""Merges into GGUF files: what the field's reader, transformers and pymerge itself find in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tokenizers
from gguf_toys import read_values, write_gguf
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

import pymerge
from pymerge.api import lay_out, plan
from pymerge.checkpoint import open_checkpoint
from pymerge.config.values import ModelRef
from pymerge.errors import NonFiniteError, RecipeError, ResourceError
from pymerge.execute.derived import read_source
from pymerge.output import single_file

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3")
#: Half a unit in the last place, of the largest value of a block of Q8_0 with its scale's own error.
CLOSE = {"f32": 0.0, "f16": 2**-11, "bf16": 2**-8, "q8_0": 0.5 / 127 + 2**-10}
END = "<|end|>"


def put_tokenizer(folder: Path, made: tokenizers.Tokenizer | None = None, **settings: Any) -> None:
    """Give a folder a tokenizer, byte-level BPE if no other."""
    if made is None:
        entries = [*"abcdefgh", "\u0120", "ab", "\u0120a"]
        made = tokenizers.Tokenizer(
            models.BPE(vocab={entry: n for n, entry in enumerate(entries)}, merges=[("a", "b"), ("\u0120", "a")])
        )
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
    made.add_special_tokens([END])
    made.save(str(folder / "tokenizer.json"))
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "chat_template": "{{ messages }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**said, **settings}))


def recipe(*folders: Path, method: str = "linear", **more: Any) -> dict[str, Any]:
    listed = [{"model": str(folder), "parameters": {"weight": 0.5}} for folder in folders]
    return {"merge_method": method, "models": listed, "dtype": "float32", **more}


def read_file(path: Path) -> dict[str, Any]:
    """Its tensors under the folder's names, as float32."""
    found = open_checkpoint(ModelRef(str(path))).tensors
    return {name: np.asarray(read_source(tensor), np.float32).reshape(tensor.shape) for name, tensor in found.items()}


def read_pairs(path: Path) -> dict[str, Any]:
    return {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()}


@pytest.fixture
def pair(toy: Callable[..., Path], here: Path) -> Callable[..., tuple[Path, Path]]:
    """Two folders of a family, the first one with a tokenizer."""

    def make(family: str = "llama", **changes: Any) -> tuple[Path, Path]:
        import shutil

        for number in (1, 2):
            shutil.copytree(toy(family, seed=number, **changes), here / f"model{number}")
        put_tokenizer(here / "model1")
        return here / "model1", here / "model2"

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_holds_what_the_folder_does(family: str, pair: Callable[..., tuple[Path, Path]], here: Path) -> None:
    models = pair(family)
    pymerge.merge(recipe(*models), here / "folder")
    folder = read_values(here / "folder")
    for form, close in CLOSE.items():
        pymerge.merge(recipe(*models), here / f"{form}.gguf", out_format=f"gguf:{form}")
        found = read_file(here / f"{form}.gguf")
        assert found.keys() == folder.keys()
        for name, values in folder.items():
            # Vectors are float32 whatever is asked for; of Gemma's, one is added and taken away.
            bound = close if values.ndim > 1 else 0.0 if family != "gemma2" else 2**-23
            limit = np.abs(values).max(axis=-1, keepdims=True) if form == "q8_0" else np.abs(values)
            assert (np.abs(found[name] - values) <= bound * np.maximum(limit, 1.0 if values.ndim == 1 else 0)).all(), (
                name
            )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "phi3"])
def test_transformers_computes_the_same_with_the_file(
    family: str, pair: Callable[..., tuple[Path, Path]], here: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    # Files do not say whether Qwen's window is used.
    changes = {"use_sliding_window": False} if family == "qwen2" else {}
    models = pair(family, **changes)
    pymerge.merge(recipe(*models), here / "folder")
    pymerge.merge(recipe(*models), here / "merged.gguf")
    ids = torch.arange(3, 23)[None]
    folder, file = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **options)(ids).logits
        for path, options in ((here / "folder", {}), (here, {"gguf_file": "merged.gguf"}))
    )
    # Of Gemma's norms one is added and taken away.
    assert torch.allclose(folder, file, rtol=0, atol=1e-6 if family == "gemma2" else 0)


def list_recipes(models: tuple[Path, Path]) -> dict[str, Any]:
    base, other = models
    layers = [
        {"sources": [{"model": str(base), "layer_range": [0, 3]}]},
        {"sources": [{"model": str(other), "layer_range": [1, 4]}]},
    ]
    return {
        "random masks": recipe(other, method="dare_ties", base_model=str(base)),
        "stacked": {"merge_method": "passthrough", "slices": layers, "dtype": "float32"},
        "cuts of all": recipe(
            other, method="ties", base_model=str(base), parameters={"trim_scope": "global", "density": 0.3}
        ),
    }


@pytest.mark.parametrize("kind", ["random masks", "stacked", "cuts of all"])
def test_a_file_has_the_numbers_of_any_recipe(kind: str, pair: Callable[..., tuple[Path, Path]], here: Path) -> None:
    chosen = list_recipes(pair())[kind]
    pymerge.merge(chosen, here / "folder", seed=3)
    pymerge.merge(chosen, here / "out.gguf", seed=3)
    planned = plan(chosen, seed=3)
    assert lay_out(planned, here / "new.gguf").shards[0].size == (here / "out.gguf").stat().st_size
    folder, found = read_values(here / "folder"), read_file(here / "out.gguf")
    assert folder.keys() == found.keys()
    assert all(np.array_equal(folder[name], found[name]) for name in folder)
    layers = json.loads((here / "folder" / "config.json").read_text())["num_hidden_layers"]
    assert read_pairs(here / "out.gguf")["llama.block_count"] == layers
    assert sorted(path.name for path in here.iterdir()) == ["folder", "model1", "model2", "out.gguf"]


@pytest.mark.parametrize("options", [{"threads": 1}, {"threads": 2, "memory": 128 << 20}, {"backend": "reference"}])
def test_the_bytes_do_not_depend_on_who_makes_them(
    options: Mapping[str, Any], pair: Callable[..., tuple[Path, Path]], here: Path
) -> None:
    models = pair(vocab_size=96, intermediate_size=64)
    for form in ("bf16", "q8_0"):
        made = []
        for out, more in (("a.gguf", {}), ("b/a.gguf", options)):
            pymerge.merge(recipe(*models), here / form / out, out_format=f"gguf:{form}", **more)
            made.append((here / form / out).read_bytes())
        assert made[0] == made[1]


def test_the_fields_reader_finds_the_settings(pair: Callable[..., tuple[Path, Path]], here: Path) -> None:
    scaling = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 32}  # fmt: skip
    models = pair(rope_parameters=scaling)
    pymerge.merge(recipe(*models), here / "out.gguf", out_format="gguf:q8_0")
    pairs, config = read_pairs(here / "out.gguf"), json.loads((models[0] / "config.json").read_text())
    said = {
        "general.architecture": "llama", "general.file_type": 7, "general.quantization_version": 2,
        "llama.block_count": config["num_hidden_layers"], "llama.embedding_length": config["hidden_size"],
        "llama.vocab_size": config["vocab_size"], "llama.rope.freq_base": 5e5,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.eos_token_id": 11,
        "tokenizer.ggml.add_bos_token": False, "tokenizer.chat_template": "{{ messages }}",
        "tokenizer.ggml.merges": ["a b", "\u0120 a"],
    }  # fmt: skip
    assert said.items() <= pairs.items()
    tokens, kinds = pairs["tokenizer.ggml.tokens"], pairs["tokenizer.ggml.token_type"]
    assert tokens[9:13] == ["ab", "\u0120a", END, "[PAD12]"]
    assert kinds[9:13] == [1, 1, 3, 5]
    assert len(tokens) == len(kinds) == config["vocab_size"]
    factors = next(t.data for t in gguf.GGUFReader(here / "out.gguf").tensors if t.name == "rope_freqs.weight")
    assert (factors[0], factors[-1], len(factors)) == (1.0, 8.0, config["head_dim"] // 2)


def test_a_file_as_base_gives_its_tokenizer_and_settings(toy: Callable[..., Path], here: Path) -> None:
    first, second = (toy("llama", seed=seed, intermediate_size=64) for seed in (1, 2))
    gone = ("x", gguf.GGUFValueType.STRING)
    write_gguf(first, here / "base.gguf", "Q8_0", quantize__imatrix__file=gone)
    pymerge.merge(recipe(here / "base.gguf", second), here / "out.gguf", out_format="gguf:f16")
    before, after = read_pairs(here / "base.gguf"), read_pairs(here / "out.gguf")
    changed = {key for key in before if before[key] != after.get(key)}
    assert changed <= {"GGUF.tensor_count", "GGUF.kv_count", "quantize.imatrix.file", "general.file_type"}
    assert after["tokenizer.ggml.tokens"][5] == "token 5"


def spaced() -> tokenizers.Tokenizer:
    """BPE as SentencePiece has it: marks for spaces, bytes for what has no entry."""
    entries = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(32)), "\u2581", *"abc", "ab", "\u2581a", "\u2581ab"]
    merges = [("a", "b"), ("\u2581", "a"), ("\u2581", "ab")]
    made = tokenizers.Tokenizer(
        models.BPE({entry: n for n, entry in enumerate(entries)}, merges, unk_token="<unk>", byte_fallback=True)
    )
    made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    made.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, len(entries))])
    return made


def test_a_tokenizer_with_marks_for_spaces_gets_scores(pair: Callable[..., tuple[Path, Path]], here: Path) -> None:
    models = pair()
    put_tokenizer(models[0], spaced(), unk_token="<unk>", bos_token=END)
    pymerge.merge(recipe(*models), here / "out.gguf")
    pairs = read_pairs(here / "out.gguf")
    by_token = dict(zip(pairs["tokenizer.ggml.tokens"], pairs["tokenizer.ggml.scores"], strict=True))
    kinds = dict(zip(pairs["tokenizer.ggml.tokens"], pairs["tokenizer.ggml.token_type"], strict=True))
    assert by_token["ab"] > by_token["\u2581a"] > by_token["\u2581ab"] > by_token["c"]
    assert [kinds[token] for token in ("<unk>", "<0x0A>", "ab", END)] == [2, 6, 1, 3]
    assert pairs["tokenizer.ggml.model"] == "llama"
    assert pairs["tokenizer.ggml.add_space_prefix"] is True
    assert pairs["tokenizer.ggml.add_bos_token"] is True


def test_a_tokenizer_of_the_recipe_is_the_files(pair: Callable[..., tuple[Path, Path]], here: Path) -> None:
    base, other = pair()
    put_tokenizer(other, None, bos_token="<|new|>")
    pymerge.merge(recipe(base, other, tokenizer_source="union", base_model=str(base)), here / "out.gguf")
    pairs = read_pairs(here / "out.gguf")
    assert "<|new|>" in pairs["tokenizer.ggml.tokens"]
    assert len(pairs["tokenizer.ggml.tokens"]) == read_file(here / "out.gguf")["model.embed_tokens.weight"].shape[0]


def test_an_unfinished_file_is_gone_on_with(
    pair: Callable[..., tuple[Path, Path]], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = pair()
    pymerge.merge(recipe(*models), here / "whole" / "out.gguf", out_format="gguf:q8_0")

    def fail(folder: Path) -> None:
        raise ResourceError("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(single_file, "sync_folder", fail)
        with pytest.raises(ResourceError, match="the disk is gone"):
            pymerge.merge(recipe(*models), here / "out.gguf", out_format="gguf:q8_0")
    with pytest.raises(RecipeError, match="holds an unfinished merge that differs"):
        pymerge.merge(recipe(*models), here / "out.gguf", out_format="gguf:f16", overwrite=True)
    report = pymerge.merge(recipe(*models), here / "out.gguf", out_format="gguf:q8_0", overwrite=True)
    assert report.execution.kept > 0
    assert (here / "out.gguf").read_bytes() == (here / "whole" / "out.gguf").read_bytes()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(("form", "cause"), [("f16", "overflowed in F16"), ("q8_0", "model2")])
def test_what_overflows_stops_the_merge(
    form: str, cause: str, backend: str, pair: Callable[..., tuple[Path, Path]], here: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    models = pair()
    file = models[1] / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.self_attn.q_proj.weight"][3, 5] = np.inf if form == "q8_0" else 1e30
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(NonFiniteError, match=rf"blk\.1\.attn_q\.weight.*index 197 .*{cause}"):
        pymerge.merge(recipe(*models), here / "out.gguf", out_format=f"gguf:{form}", backend=backend)
    assert not (here / "out.gguf").exists()
    report = pymerge.merge(
        recipe(*models), here / "out.gguf", out_format=f"gguf:{form}", backend=backend, allow_nonfinite=True
    )
    # A block of Q8_0 is not finite as a whole.
    assert report.execution.nonfinite == {"blk.1.attn_q.weight": 1 if form == "f16" else 32}


@pytest.mark.parametrize(
    ("family", "out", "options", "message"),
    [
        ("gpt2", "out.gguf", {}, "models of the type 'gpt2' are not written as GGUF"),
        ("llama", "out", {"out_format": "gguf"}, r"what is written is a gguf file; name it out\.gguf"),
        ("llama", "out.gguf", {"out_format": "gguf:q4_k"}, r'cannot be in the format "gguf:q4_k"; it is one of'),
        ("llama", "out.gguf", {"push": "a/b"}, "a GGUF file is not pushed"),
        ("llama", "out.gguf", {"gguf_like": "other.gguf"}, "is of the architecture 'qwen2', and the merge of 'llama'"),
    ],
)
def test_what_cannot_be_written_is_refused_before_a_weight_is_read(
    family: str, out: str, options: dict[str, Any], message: str, toy: Callable[..., Path], here: Path
) -> None:
    if "gguf_like" in options:
        write_gguf(toy("qwen2"), here / "other.gguf")
    with pytest.raises(RecipeError, match=message):
        pymerge.merge(recipe(toy(family), toy(family, seed=1)), here / out, **options)
    assert not (here / out).exists()


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_ids_that_stand_for_no_token_are_left_out(pair: Callable[..., tuple[Path, Path]], here: Path) -> None:
    models = pair()
    change_config(models[0], pad_token_id=-1)
    pymerge.merge(recipe(*models), here / "out.gguf")
    assert "tokenizer.ggml.padding_token_id" not in read_pairs(here / "out.gguf")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_parameters": None, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "how positions are scaled"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "positions are scaled by 'dynamic'"),
        ({"max_position_embeddings": 1 << 40}, "max_position_embeddings is .* correct it there"),
    ],
)
def test_settings_that_cannot_be_written_are_named(
    changes: dict[str, Any], message: str, pair: Callable[..., tuple[Path, Path]], here: Path
) -> None:
    models = pair()
    change_config(models[0], **changes)
    with pytest.raises(RecipeError, match=message):
        pymerge.merge(recipe(*models), here / "out.gguf")


def test_a_model_without_a_tokenizer_is_refused(toy: Callable[..., Path], here: Path) -> None:
    with pytest.raises(RecipeError, match="has no tokenizer"):
        pymerge.merge(recipe(toy("llama"), toy("llama", seed=1)), here / "out.gguf")
