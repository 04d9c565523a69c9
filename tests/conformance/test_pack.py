"""The specification of packing against the field's own writer, and the compiled kernel against the specification."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pymerge import _core
from pymerge.checkpoint.sources import PACKED
from pymerge.kernels.common.convert import decode, encode
from pymerge.kernels.pack import spec

MANY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SPECIAL = np.array(
    [0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 1e-45, -3e-39, 2e-38, 65504, 65520, 8.4e6, 3.4e38, 0.49999997],
    np.float32,
)


def draw_values(data: st.DataObject, count: int) -> Any:
    """Ordinary values of some magnitude; now and then what is not ordinary, or halfway between two codes."""
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = random.standard_normal(count).astype(np.float32) * np.float32(10.0 ** data.draw(st.integers(-42, 37)))
    if count and data.draw(st.booleans()):
        at = random.integers(0, count, max(1, count // 50))
        values[at] = SPECIAL[random.integers(0, SPECIAL.size, at.size)]
    if data.draw(st.booleans()):
        values[::7] = np.float32(0.5) * random.integers(-255, 256, values[::7].size)
    return values


@given(st.data())
@MANY
def test_blocks_are_those_of_the_fields_writer(data: st.DataObject) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 999)))
    values = random.standard_normal(32 * data.draw(st.integers(2, 40))).astype(np.float32)
    values *= np.float32(10.0 ** data.draw(st.integers(-6, 4)))
    values[:32] = data.draw(st.sampled_from([0.0, 1.0, -1.5]))
    values[32:64] = np.arange(32) - 15.5
    for name in ("Q8_0", "BF16", "F16", "F32"):
        theirs = gguf.quants.quantize(values, gguf.GGMLQuantizationType[name])
        assert np.array_equal(spec.run(values, name), theirs.view(np.uint8).reshape(-1)), name


def test_sources_know_the_blocks_of_the_specification() -> None:
    assert {name: block[::-1] for name, block in PACKED.items()} == spec.FORMATS


@pytest.mark.parametrize("name", spec.FORMATS)
@given(data=st.data())
@MANY
def test_any_range_of_bytes_is_the_specified_one(level: str, name: str, data: st.DataObject) -> None:
    elements, _ = spec.FORMATS[name]
    blocks = data.draw(
        st.integers(0, 3 * 65536 // elements) if data.draw(st.integers(0, 9)) == 0 else st.integers(0, 90)
    )
    dtype, code = data.draw(st.sampled_from([("float32", "F32"), ("bfloat16", "BF16"), ("float16", "F16")]))
    stored = encode(draw_values(data, blocks * elements), dtype)
    packed = np.concatenate([spec.run(decode(stored, "float32"), name), np.zeros(31, np.uint8)])
    begin = data.draw(st.integers(0, packed.size))
    length = data.draw(st.integers(0, packed.size - begin))
    guarded = np.full(length + 2, 0xA5, np.uint8)
    raw = stored if dtype != "bfloat16" else stored.view(np.uint16)
    _core.Tensor.from_buffer(raw, code).pack_into(name, begin, guarded[1:-1])
    assert np.array_equal(guarded[1:-1], packed[begin : begin + length])
    assert guarded[0] == guarded[-1] == 0xA5


@pytest.mark.parametrize(
    ("name", "values", "bad"),
    [
        ("F16", [1.0, 65520.0, np.nan, -np.inf], 3),
        ("BF16", [3.4e38, 3.3e38], 1),
        ("F32_PLUS_ONE", [np.inf, 0.0], 1),
        ("Q8_0", [np.nan] + [0.0] * 63, 32),
        ("Q8_0", [65504 * 128.0] + [0.0] * 63, 32),
        ("Q8_0", [65504 * 126.0] + [0.0] * 63, 0),
    ],
)
def test_what_is_not_finite_is_counted(level: str, name: str, values: list[float], bad: int) -> None:
    array = np.array(values, np.float32)
    out = np.empty(array.size // spec.FORMATS[name][0] * spec.FORMATS[name][1], np.uint8)
    assert _core.Tensor.from_buffer(array, "F32").pack_into(name, 0, out) == bad
    assert np.count_nonzero(spec.nonfinite(spec.run(array, name), name)) == bad
