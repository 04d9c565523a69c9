"""Which tensors of a quantized checkpoint are codes, and with which scales they are weights."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pymerge.checkpoint import StoredTensor
from pymerge.checkpoint.quantized import find_quantization, find_scaled
from pymerge.dtypes import BY_CODE
from pymerge.errors import FormatError

BLOCKS = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
PLAIN = {"quantization_config": {"quant_method": "fp8", "activation_scheme": "static"}}
FBGEMM = {"quantization_config": {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}}
MODELOPT = {"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8"}}
MXFP4 = {"quantization_config": {"quant_method": "mxfp4"}}


def compressed(strategy: str = "channel", form: str = "float-quantized", **weights: Any) -> dict[str, Any]:
    kind = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": strategy, **weights}
    groups = {"group_0": {"targets": ["Linear"], "weights": kind}}
    return {"quantization_config": {"quant_method": "compressed-tensors", "format": form, "config_groups": groups}}


def store(**tensors: tuple[str, tuple[int, ...]]) -> dict[str, StoredTensor]:
    """Stored tensors by name, in which __ stands for a dot."""
    names = {name.replace("__", "."): value for name, value in tensors.items()}
    return {name: StoredTensor(name, BY_CODE[code], shape, "x", 0, 0) for name, (code, shape) in names.items()}


@pytest.mark.parametrize(
    ("config", "codes", "scales", "block"),
    [
        (BLOCKS, ("F8_E4M3", (300, 256)), ("F32", (3, 2)), (128, 128)),
        (BLOCKS, ("F8_E4M3", (4, 300, 256)), ("BF16", (4, 3, 2)), (128, 128)),
        (BLOCKS, ("F8_E5M2", (100, 100)), ("F32", (1, 1)), (128, 128)),
        (PLAIN, ("F8_E4M3", (300, 256)), ("F32", ()), (300, 256)),
        (PLAIN, ("F8_E4M3", (300, 256)), ("F32", (1,)), (300, 256)),
        (PLAIN, ("F8_E4M3", (8, 300, 256)), ("F32", (8,)), (300, 256)),
        (compressed(), ("F8_E4M3", (300, 256)), ("BF16", (300, 1)), (1, 256)),
        (compressed(), ("F8_E4M3", (300, 256)), ("F16", (300,)), (1, 256)),
        (FBGEMM, ("F8_E4M3", (300, 256)), ("F32", (300, 1)), (1, 256)),
        (MODELOPT, ("F8_E4M3", (300, 256)), ("F32", ()), (300, 256)),
        (compressed("tensor"), ("F8_E4M3", (300, 256)), ("F32", (1,)), (300, 256)),
        (compressed("block", block_structure=[64, 128]), ("F8_E4M3", (300, 256)), ("F32", (5, 2)), (64, 128)),
    ],
)
@pytest.mark.parametrize("ending", ["weight_scale_inv", "weight_scale"])
def test_codes_of_eight_bits_have_their_scales(config: Any, codes: Any, scales: Any, block: Any, ending: str) -> None:
    tensors = store(a__weight=codes, a__bias=("BF16", (300,)), a__input_scale=("F32", ()), **{f"a__{ending}": scales})
    found = find_scaled(tensors, config)
    assert found is not None
    assert found.needless == ("a.input_scale",)
    (scaled,) = found.weights.values()
    assert (scaled.name, scaled.codes.name, scaled.scales.name) == ("a.weight", "a.weight", f"a.{ending}")
    assert (scaled.shape, scaled.block, scaled.turned) == (codes[1], block, False)


def test_mxfp4_has_groups_of_32_values() -> None:
    tensors = store(e__down_proj_blocks=("U8", (4, 6, 3, 16)), e__down_proj_scales=("U8", (4, 6, 3)),
                    e__down_proj_bias=("BF16", (4, 6)))  # fmt: skip
    found = find_scaled(tensors, MXFP4)
    assert found is not None
    (scaled,) = found.weights.values()
    assert (scaled.name, scaled.shape, scaled.block, scaled.turned) == ("e.down_proj", (4, 6, 96), None, True)


@pytest.mark.parametrize(
    ("config", "tensors", "says"),
    [
        (BLOCKS, {"a__weight": ("F8_E4M3", (300, 256))}, "has no tensor of scales"),
        (BLOCKS, {"a__weight": ("F8_E4M3", (2, 2)), "a__weight_scale": ("F32", ()), "a__weight_scale_inv": ("F32", ())},
         "has two tensors of scales"),
        (BLOCKS, {"a__weight": ("F8_E4M3", (300, 256)), "a__weight_scale_inv": ("F32", (2, 2))}, "fit no blocks"),
        (BLOCKS, {"a__weight": ("F8_E4M3", (300, 256)), "a__weight_scale_inv": ("I32", (3, 2))}, "int32"),
        (MXFP4, {"e__x_blocks": ("U8", (4, 6, 3, 16))}, "are not MXFP4"),
        (MXFP4, {"e__x_blocks": ("U8", (4, 6, 3, 8)), "e__x_scales": ("U8", (4, 6, 3))}, "are not MXFP4"),
        (MXFP4, {"e__x_blocks": ("I8", (4, 6, 3, 16)), "e__x_scales": ("U8", (4, 6, 3))}, "are not MXFP4"),
        (MXFP4, {"e__x_blocks": ("U8", (16,)), "e__x_scales": ("U8", ())}, "are not MXFP4"),
    ],
)  # fmt: skip
def test_codes_and_scales_that_do_not_fit_are_an_error(config: Any, tensors: Any, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        find_scaled(store(**tensors), config)


@pytest.mark.parametrize(
    "config",
    [
        {"quantization_config": {"quant_method": "gptq"}},
        {"quantization_config": {"quant_method": "awq"}},
        {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        {"quantization_config": {"quant_method": "fp8", "weight_block_size": "128"}},
        compressed(form="int-quantized"),
        compressed(form="pack-quantized", num_bits=4, type="int"),
        compressed(num_bits=4),
        compressed(type="int"),
        compressed("group"),
        compressed(symmetric=False),
        compressed("block"),
        {"quantization_config": {"quant_method": "compressed-tensors", "format": "float-quantized"}},
        {},
    ],
)
def test_other_schemes_are_left_to_be_refused_by_name(config: Any) -> None:
    tensors = store(a__weight=("F8_E4M3", (2, 2)), a__weight_scale=("F32", ()))
    assert find_scaled(tensors, config) is None
    assert find_quantization(tensors, config)


WORDS = st.sampled_from(["fp8", "mxfp4", "compressed-tensors", "float-quantized", "block", "tensor", "float", 8, True])
KEYS = st.sampled_from(["quant_method", "format", "config_groups", "weights", "weight_block_size", "num_bits", "type",
                        "strategy", "block_structure", "group_0", "symmetric"])  # fmt: skip
VALUES = st.recursive(
    st.one_of(WORDS, st.none(), st.integers(-1, 200)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, VALUES), st.sampled_from(["F8_E4M3", "U8"]), st.lists(st.integers(0, 200), max_size=4))
@settings(max_examples=150, deadline=None)
def test_whatever_config_says_the_answer_is_one_of_three(config: Any, code: str, shape: list[int]) -> None:
    tensors = store(a__weight=(code, tuple(shape)), a__weight_scale=("F32", (1,)), a__x_blocks=(code, (1, 1, 16)))
    try:
        found = find_scaled(tensors, {"quantization_config": config})
    except FormatError:
        return
    assert found is None or found.weights
