"""The specification of dequantizing against the formats' own formulas, ml_dtypes, torch, and the field's reader."""

from __future__ import annotations

from typing import Any

import gguf
import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pymerge.kernels.dequantize import packed, spec

EVERY = np.arange(256, dtype=np.uint8)
KINDS = {"F8_E4M3": (ml_dtypes.float8_e4m3fn, 448.0), "F8_E5M2": (ml_dtypes.float8_e5m2, 57344.0)}
SCALES = (np.float32, np.float16, ml_dtypes.bfloat16)
MANY = settings(max_examples=60, deadline=None)


def same(left: Any, right: Any) -> bool:
    """Whether all bits are the same, but those of NaN."""
    left, right = np.asarray(left, np.float32), np.asarray(right, np.float32)
    nan = np.isnan(left)
    return left.shape == right.shape and bool(
        (np.isnan(right) == nan).all() and (left.view(np.uint32) == right.view(np.uint32))[~nan].all()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_byte_has_the_value_of_its_format(kind: str) -> None:
    dtype, largest = KINDS[kind]
    values = spec.decode_fp8(EVERY, kind)
    assert same(values, EVERY.view(dtype).astype(np.float32))
    assert values[np.isfinite(values)].max() == largest


def test_every_code_of_four_bits_has_its_value() -> None:
    codes = np.arange(16, dtype=np.uint8)
    assert same(spec.decode_e2m1(codes), codes.view(ml_dtypes.float4_e2m1fn).astype(np.float32))
    assert spec.decode_e2m1(codes)[:8].tolist() == [0, 0.5, 1, 1.5, 2, 3, 4, 6]


def test_every_scale_is_a_power_of_two() -> None:
    values = spec.decode_e8m0(EVERY)
    assert same(values, EVERY.view(ml_dtypes.float8_e8m0fnu).astype(np.float32))
    assert values[:255].tolist() == [2.0 ** (code - 127) for code in range(255)]


@given(st.data())
@MANY
def test_elements_are_multiplied_by_the_scale_of_their_block(data: st.DataObject) -> None:
    lead = tuple(data.draw(st.lists(st.integers(1, 3), max_size=1)))
    rows, columns = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 300))
    block = data.draw(st.sampled_from([(128, 128), (1, columns), (rows, columns), (7, 5), (1, 32)]))
    kind, scale = data.draw(st.sampled_from(sorted(KINDS))), data.draw(st.sampled_from(SCALES))
    random = np.random.default_rng(data.draw(st.integers(0, 9)))
    codes = random.integers(0, 256, (*lead, rows, columns), np.uint8)
    grid = (*lead, -(-rows // block[0]), -(-columns // block[1]))
    scales = random.lognormal(-4, 2, grid).astype(scale)
    found = spec.run_fp8(codes, scales, block, kind)
    assert found.dtype == np.float32
    # In float64 the product is exact: 4 bits by 24.
    exact = codes.view(KINDS[kind][0]).astype(np.float64)
    row, column = np.arange(rows) // block[0], np.arange(columns) // block[1]
    exact *= scales.astype(np.float64)[..., row, :][..., column]
    with np.errstate(over="ignore"):
        assert same(found, exact.astype(np.float32))


def test_scales_that_do_not_fit_are_an_error() -> None:
    codes = np.zeros((129, 128), np.uint8)
    with pytest.raises(ValueError, match=r"scales are \[1, 1\]"):
        spec.run_fp8(codes, np.ones((1, 1), np.float32), (128, 128), "F8_E4M3")
    with pytest.raises(ValueError, match="blocks"):
        spec.run_mxfp4(np.zeros((2, 15), np.uint8), np.zeros(2, np.uint8))


@given(st.integers(1, 3), st.integers(1, 5), st.integers(0, 4), st.integers(0, 99))
@MANY
def test_groups_of_four_bits_are_multiplied_by_their_power(experts: int, rows: int, groups: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (experts, rows, groups, 16), np.uint8)
    scales = random.integers(0, 256, (experts, rows, groups), np.uint8)
    found = spec.run_mxfp4(blocks, scales)
    assert found.shape == (experts, rows, 32 * groups)
    for at in np.ndindex(found.shape):
        *place, element = at
        group, within = divmod(element, 32)
        byte = int(blocks[(*place, group, within // 2)])
        code = byte >> 4 if within % 2 else byte & 15
        scale = int(scales[(*place, group)])
        magnitude = (0, 0.5, 1, 1.5, 2, 3, 4, 6)[code & 7]
        exact = np.nan if scale == 255 else (-1) ** (code >> 3) * magnitude * 2.0 ** (scale - 127)
        with np.errstate(over="ignore"):
            expected = np.float32(exact)
        if code == 8 and scale != 255:
            expected = np.float32(-0.0)
        assert same(found[at], expected)


def test_the_reader_of_transformers_agrees_and_turns_matrices() -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (2, 6, 3, 16), np.uint8)
    scales = random.integers(100, 140, (2, 6, 3), np.uint8)
    turned = convert_moe_packed_tensors(torch.from_numpy(blocks), torch.from_numpy(scales), dtype=torch.float32)
    assert same(spec.run_mxfp4(blocks, scales).transpose(0, 2, 1), turned.numpy())


@pytest.mark.parametrize("name", sorted(set(packed.FORMATS) - {"F32_LESS_ONE"}))
@pytest.mark.filterwarnings("ignore")
def test_blocks_are_what_the_field_reads(name: str) -> None:
    kind = gguf.GGMLQuantizationType[name]
    assert packed.FORMATS[name] == gguf.GGML_QUANT_SIZES[kind]
    blocks = np.random.default_rng(0).integers(0, 256, (300, packed.FORMATS[name][1]), np.uint8)
    assert same(packed.run(blocks, name), gguf.quants.dequantize(blocks, kind))
