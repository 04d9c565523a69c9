"""Quantized checkpoints through whole merges: their weights are the specification's, and nothing else is left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import toys
from safetensors.numpy import load_file, save_file

import pymerge
from pymerge.errors import PymergeError
from pymerge.kernels.dequantize import spec
from pymerge.verify.values import Status

#: Name -> (code of the header, array).
Stored = dict[str, tuple[str, Any]]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
#: No multiples of 128, so that blocks end within rows and columns.
SHAPE = {"layers": 2, "width": 160, "inner": 200, "vocabulary": 40}
CODES = np.array([code for code in range(256) if code & 127 != 127], np.uint8)


def write_files(folder: Path, config: dict[str, Any], *files: Stored) -> Path:
    """Shards and their index."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    weight_map = {}
    for number, tensors in enumerate(files):
        name = f"model-{number}.safetensors"
        head, _ = toys.header_bytes({key: (code, array.shape) for key, (code, array) in tensors.items()})
        (folder / name).write_bytes(head + b"".join(array.tobytes() for _, array in tensors.values()))
        weight_map |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def is_linear(name: str) -> bool:
    return "proj" in name


def plain(name: str, shape: tuple[int, ...], random: Any) -> tuple[str, Any]:
    return "BF16", random.standard_normal(shape).astype(BFLOAT16)


def make_blocks(folder: Path) -> dict[str, Any]:
    """As DeepSeek-V3: blocks of 128 x 128, scales called inverse, in another file than their codes."""
    random = np.random.default_rng(0)
    weights: Stored = {}
    scales: Stored = {}
    values = {}
    for name, shape in toys.llama_shapes(**SHAPE).items():
        weights[name] = plain(name, shape, random)
        if is_linear(name):
            codes = random.choice(CODES, shape)
            scale = random.lognormal(-5, 1, tuple(-(-dim // 128) for dim in shape)).astype(np.float32)
            weights[name], scales[f"{name}_scale_inv"] = ("F8_E4M3", codes), ("F32", scale)
            values[name] = spec.run_fp8(codes, scale, (128, 128), "F8_E4M3")
    quantization = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
    config = toys.llama_config(2, SHAPE["vocabulary"], hidden_size=160, quantization_config=quantization)
    write_files(folder, {**config, "torch_dtype": "bfloat16"}, weights, scales)
    return values | {name: array for name, (code, array) in weights.items() if code == "BF16"}


def make_tensors(folder: Path) -> dict[str, Any]:
    """As compressed-tensors: one scale a tensor, and scales of activations."""
    random = np.random.default_rng(1)
    stored: Stored = {}
    values = {}
    for name, shape in toys.llama_shapes(**SHAPE).items():
        stored[name] = plain(name, shape, random)
        if is_linear(name):
            codes, scale = random.choice(CODES, shape), random.lognormal(-5, 1, 1).astype(BFLOAT16)
            stored |= {name: ("F8_E4M3", codes), f"{name}_scale": ("BF16", scale)}
            stored[name.removesuffix("weight") + "input_scale"] = ("F32", np.ones(1, np.float32))
            values[name] = spec.run_fp8(codes, scale.reshape(1, 1), shape, "F8_E4M3")  # type: ignore[arg-type]
    weights = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "tensor"}
    quantization = {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }
    config = toys.llama_config(2, SHAPE["vocabulary"], hidden_size=160, quantization_config=quantization)
    write_files(folder, {**config, "torch_dtype": "bfloat16"}, stored)
    return values | {name: array for name, (code, array) in stored.items() if name in toys.llama_shapes(**SHAPE)
                     and code == "BF16"}  # fmt: skip


def make_groups(folder: Path) -> dict[str, Any]:
    """As gpt-oss: experts in MXFP4, stored with rows and columns exchanged."""
    random = np.random.default_rng(2)
    stored: Stored = {"model.embed_tokens.weight": plain("", (40, 64), random)}
    values = {}
    for layer in range(2):
        prefix = f"model.layers.{layer}."
        stored[f"{prefix}self_attn.q_proj.weight"] = plain("", (64, 64), random)
        for kind, rows, columns in (("gate_up_proj", 192, 64), ("down_proj", 64, 96)):
            name = f"{prefix}mlp.experts.{kind}"
            blocks = random.integers(0, 256, (4, rows, columns // 32, 16), np.uint8)
            scales = random.integers(115, 130, (4, rows, columns // 32), np.uint8)
            stored |= {f"{name}_blocks": ("U8", blocks), f"{name}_scales": ("U8", scales)}
            stored[f"{name}_bias"] = plain("", (4, rows), random)
            values[name] = spec.run_mxfp4(blocks, scales).swapaxes(-1, -2)
    config = {
        "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "num_hidden_layers": 2, "hidden_size": 64,
        "vocab_size": 40, "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
    }  # fmt: skip
    write_files(folder, config, stored)
    return values | {name: array for name, (code, array) in stored.items() if code == "BF16"}


MAKERS = pytest.mark.parametrize("make", [make_blocks, make_tensors, make_groups])


def read(folder: Path) -> dict[str, Any]:
    return {name: array for path in sorted(folder.glob("*.safetensors")) for name, array in load_file(path).items()}


@MAKERS
def test_weights_are_written_as_what_their_codes_stand_for(make: Callable[[Path], Any], here: Path) -> None:
    values = make(here / "quantized")
    recipe = {"merge_method": "passthrough", "models": [{"model": "quantized"}]}
    report = pymerge.merge(recipe, here / "out")
    assert any("its weights are dequantized" in warning for warning in report.warnings)
    merged = read(here / "out")
    assert merged.keys() == values.keys()
    for name, tensor in merged.items():
        # The type of the weights that are not quantized.
        assert tensor.dtype == BFLOAT16, name
        assert tensor.tobytes() == values[name].astype(BFLOAT16).tobytes(), name
    config = json.loads((here / "out" / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["torch_dtype"] == "bfloat16"
    assert pymerge.verify(here / "out", sample=None).status is Status.PASSED


@MAKERS
def test_a_quantized_model_merges_with_one_that_is_not(make: Callable[[Path], Any], here: Path) -> None:
    values = make(here / "quantized")
    config = json.loads((here / "quantized" / "config.json").read_text())
    del config["quantization_config"]
    # What the quantized one is, in float32, so that the mean is the same once more.
    toys.write_checkpoint(here / "plain", {name: np.ascontiguousarray(array) for name, array in values.items()}, config)
    listed = [{"model": model, "parameters": {"weight": 0.5}} for model in ("plain", "quantized")]
    recipe = {"merge_method": "linear", "models": listed, "dtype": "float32"}
    for backend in ("cpu", "reference"):
        pymerge.merge(recipe, here / backend, backend=backend)
        for name, tensor in read(here / backend).items():
            assert np.array_equal(tensor, values[name].astype(np.float32)), name


def test_threads_do_not_change_what_codes_are(here: Path) -> None:
    make_groups(here / "quantized")
    recipe = {"merge_method": "passthrough", "models": [{"model": "quantized"}], "dtype": "float32"}
    outputs = []
    for threads in (1, 3):
        pymerge.merge(recipe, here / f"out-{threads}", threads=threads)
        outputs.append({name: array.tobytes() for name, array in read(here / f"out-{threads}").items()})
    assert outputs[0] == outputs[1]


def test_an_adapter_is_added_to_what_codes_are(here: Path) -> None:
    values = make_blocks(here / "quantized")
    module = "model.layers.0.self_attn.q_proj"
    random = np.random.default_rng(0)
    a, b = (random.standard_normal(shape).astype(np.float32) for shape in ((2, 160), (160, 2)))
    (here / "lora").mkdir()
    (here / "lora" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))
    factors = {f"base_model.model.{module}.lora_{side}.weight": array for side, array in (("A", a), ("B", b))}
    save_file(factors, here / "lora" / "adapter_model.safetensors")
    recipe = {"merge_method": "passthrough", "models": [{"model": "quantized+lora"}], "dtype": "float32"}
    pymerge.merge(recipe, here / "out")
    expected = values[f"{module}.weight"] + b @ a
    np.testing.assert_allclose(read(here / "out")[f"{module}.weight"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "hqq"])
def test_other_schemes_are_refused_by_name(method: str, here: Path) -> None:
    config = toys.llama_config(quantization_config={"quant_method": method})
    toys.write_llama(here / "quantized", config=config)
    recipe = {"merge_method": "passthrough", "models": [{"model": "quantized"}]}
    with pytest.raises(PymergeError, match=rf"is quantized \({method}\)"):
        pymerge.merge(recipe, here / "out")
