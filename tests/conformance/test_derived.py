"""Derived tensors give the bits of their specifications, read whole, in any parts, and through kernels."""

from __future__ import annotations

import hashlib
from array import array
from statistics import NormalDist
from typing import Any

import kernel_cases as cases
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pymerge import _core
from pymerge.dtypes import BY_NAME
from pymerge.errors import InternalError
from pymerge.kernels.common.convert import NUMPY_DTYPES
from pymerge.kernels.dequantize import packed
from pymerge.kernels.dequantize import spec as dequantize
from pymerge.kernels.low_rank import spec as low_rank
from pymerge.kernels.noise import spec as noise
from pymerge.kernels.rows import spec as rows

NARROW = ("float32", "float16", "bfloat16")
#: Derived tensors are read under a merge; their bits do not depend on the level that merges.
ONCE_A_LEVEL = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def wrap(values: Any, dtype: str) -> _core.Tensor:
    return _core.Tensor.from_buffer(values.view(f"u{values.dtype.itemsize}"), BY_NAME[dtype].code)


def read(tensor: _core.Tensor, dtype: str, begin: int = 0, count: int | None = None) -> Any:
    out = np.empty(tensor.count - begin if count is None else count, NUMPY_DTYPES[dtype])
    tensor.read_into(begin, out.view(np.uint8))
    return out


def same_bits(left: Any, right: Any) -> bool:
    return left.dtype == right.dtype and left.tobytes() == right.tobytes()


@st.composite
def row_choices(draw: st.DrawFn) -> tuple[list[Any], str, list[list[tuple[int, int]]], int]:
    """(matrices, their dtype, for each row its (part, row)s, width)."""
    dtype = draw(st.sampled_from(NARROW))
    width = draw(st.sampled_from((1, 3, 32, 1024, 1500)))
    heights = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    matrices = [cases.make(dtype, height * width, 0, special=True, seed=n)[0] for n, height in enumerate(heights)]
    part = st.integers(0, len(heights) - 1)
    entry = part.flatmap(lambda p: st.tuples(st.just(p), st.integers(0 if draw(st.booleans()) else -1, heights[p] - 1)))
    most = draw(st.sampled_from((1, 3)))
    chosen = draw(st.lists(st.lists(entry, max_size=most), min_size=1, max_size=20))
    return matrices, dtype, chosen, width


def flatten(chosen: list[list[tuple[int, int]]]) -> tuple[array[int], array[int], array[int]]:
    starts, parts, numbers = array("q", [0]), array("q"), array("q")
    for entries in chosen:
        parts.extend(part for part, _ in entries)
        numbers.extend(row for _, row in entries)
        starts.append(len(parts))
    return starts, parts, numbers


@ONCE_A_LEVEL
@given(case=row_choices(), data=st.data())
def test_rows_are_the_specifications(case: Any, data: st.DataObject) -> None:
    matrices, dtype, chosen, width = case
    choice = flatten(chosen)
    plain = all(len(entries) < 2 and (not entries or entries[0][1] >= 0) for entries in chosen)
    stored = dtype if plain else "float32"
    expected = rows.run(matrices, *choice, width, stored)
    parts = [wrap(matrix, dtype) for matrix in matrices]
    tensor = _core.Tensor.take_rows(parts, *choice, width, BY_NAME[stored].code)
    # Which NaN a sum gives is the processor's choice; what is stored of it is always the same one.
    same = same_bits if plain else same_values
    assert same(read(tensor, stored), expected)
    begin = data.draw(st.integers(0, expected.size))
    count = data.draw(st.integers(0, expected.size - begin))
    assert same(read(tensor, stored, begin, count), expected[begin : begin + count])


@pytest.mark.parametrize(
    "choice",
    [
        ([0, 1], [0], [3]),
        ([0, 1], [1], [0]),
        ([0, 1], [0], [-2]),
        ([0, 2], [0], [0]),
        ([1, 1], [0], [0]),
        ([0, 2, 1], [0, 0], [0, 0]),
    ],
)
def test_choices_that_lead_nowhere_are_refused(choice: Any) -> None:
    matrix = np.zeros(12, np.float32)
    with pytest.raises(InternalError, match="choice of rows"):
        _core.Tensor.take_rows([wrap(matrix, "float32")], *(array("q", numbers) for numbers in choice), 4, "F32")


@ONCE_A_LEVEL
@given(data=st.data())
def test_low_rank_updates_are_the_specifications(level: str, data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 11)), data.draw(st.sampled_from((1, 7, 255, 256, 257, 1030)))
    dtype = data.draw(st.sampled_from(NARROW))
    base = data.draw(st.sampled_from((None, cases.make(dtype, height * width, 0, special=True)[0])))
    updates: list[Any] = []
    for seed in range(data.draw(st.integers(1, 3))):
        rank = data.draw(st.integers(1, 9))
        kind, turned = data.draw(st.sampled_from(NARROW)), data.draw(st.booleans())
        a, b = (cases.make(kind, rank * size, 0, seed=seed)[0] for size in (width, height))
        updates.append((a, b, rank, data.draw(st.sampled_from((0.25, 2.0, 1 / 3))), turned))
    expected = low_rank.run(base, updates, height, width)
    given_updates = [
        (wrap(a, name_of(a)), wrap(b, name_of(b)), rank, scale, turned) for a, b, rank, scale, turned in updates
    ]
    over = None if base is None else wrap(base, dtype)
    tensor = _core.Tensor.add_low_rank(over, given_updates, height, width)
    assert same_bits(read(tensor, "float32"), expected)
    begin = data.draw(st.integers(0, expected.size))
    count = data.draw(st.integers(0, expected.size - begin))
    assert same_bits(read(tensor, "float32", begin, count), expected[begin : begin + count])
    ideal = low_rank.ideal(base, updates, height, width)
    with np.errstate(invalid="ignore"):
        near = np.abs(expected - ideal) <= 1e-6 * (1 + np.abs(ideal))
    assert (near | ~np.isfinite(ideal)).all()


def name_of(values: Any) -> str:
    return next(name for name, dtype in NUMPY_DTYPES.items() if dtype == values.dtype)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3)])
def test_updates_that_do_not_fit_are_refused(shape: tuple[int, int]) -> None:
    a, b = (wrap(np.zeros(2 * size, np.float32), "float32") for size in (4, 3))
    with pytest.raises(InternalError, match="does not fit"):
        _core.Tensor.add_low_rank(None, [(a, b, 2, 1.0, False)], *shape)


def same_values(left: Any, right: Any) -> bool:
    """Whether all bits are the same, but those of NaN."""
    same = (left.view(np.uint32) == right.view(np.uint32)) | (np.isnan(left) & np.isnan(right))
    return left.shape == right.shape and bool(same.all())


def check_decoded(tensor: _core.Tensor, expected: Any, data: st.DataObject) -> None:
    """Whole, and from and to anywhere."""
    assert same_values(read(tensor, "float32"), expected)
    begin = data.draw(st.integers(0, expected.size))
    count = data.draw(st.integers(0, expected.size - begin))
    assert same_values(read(tensor, "float32", begin, count), expected[begin : begin + count])


def wrap_bytes(values: Any, code: str = "U8") -> _core.Tensor:
    return _core.Tensor.from_buffer(values.reshape(-1), code)


@ONCE_A_LEVEL
@given(data=st.data())
def test_codes_of_eight_bits_are_the_specifications(level: str, data: st.DataObject) -> None:
    lead, rows = data.draw(st.integers(1, 3)), data.draw(st.sampled_from((1, 2, 7, 130)))
    columns = data.draw(st.sampled_from((1, 5, 127, 128, 300, 1025)))
    block = data.draw(st.sampled_from(((128, 128), (1, columns), (rows, columns), (3, 40))))
    kind = data.draw(st.sampled_from(("F8_E4M3", "F8_E5M2")))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    codes = random.integers(0, 256, (lead, rows, columns), np.uint8)
    grid = (lead, -(-rows // block[0]), -(-columns // block[1]))
    stored = data.draw(st.sampled_from((*NARROW, "powers")))
    if stored == "powers":
        scales = random.integers(0, 256, grid, np.uint8)
        wrapped = wrap_bytes(scales, "F8_E8M0")
    else:
        largest = 60_000  # of float16
        scales = np.minimum(random.lognormal(-4, 4, grid), largest).astype(NUMPY_DTYPES[stored])
        wrapped = wrap(scales.reshape(-1), stored)
    expected = dequantize.run_fp8(codes, scales, block, kind).reshape(-1)
    tensor = _core.Tensor.scale_blocks(wrap_bytes(codes, kind), wrapped, (lead, rows, columns, *block))
    check_decoded(tensor, expected, data)


@ONCE_A_LEVEL
@given(data=st.data())
def test_codes_of_four_bits_are_the_specifications_with_rows_as_columns(level: str, data: st.DataObject) -> None:
    lead, rows = data.draw(st.integers(1, 4)), data.draw(st.sampled_from((1, 2, 33, 64, 135)))
    groups = data.draw(st.integers(1, 5))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    blocks = random.integers(0, 256, (lead, rows, groups, 16), np.uint8)
    scales = random.integers(0, 256, (lead, rows, groups), np.uint8)
    expected = np.ascontiguousarray(dequantize.run_mxfp4(blocks, scales).swapaxes(1, 2)).reshape(-1)
    tensor = _core.Tensor.scale_groups(wrap_bytes(blocks), wrap_bytes(scales), rows, groups)
    check_decoded(tensor, expected, data)


def test_matrices_of_four_bits_that_need_several_reads_and_more_memory_than_is_kept_are_the_specifications() -> None:
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (3, 4097, 300, 16), np.uint8)
    scales = random.integers(100, 140, (3, 4097, 300), np.uint8)
    tensor = _core.Tensor.scale_groups(wrap_bytes(blocks), wrap_bytes(scales), 4097, 300)
    size = 4097 * 9600
    for matrix in (0, 2, 1, 0):
        expected = dequantize.run_mxfp4(blocks[matrix, :, 7:8], scales[matrix, :, 7:8]).T
        found = read(tensor, "float32", matrix * size + 7 * 32 * 4097, 32 * 4097)
        assert same_values(found, np.ascontiguousarray(expected).reshape(-1))


@ONCE_A_LEVEL
@given(data=st.data(), name=st.sampled_from(sorted(packed.FORMATS)))
def test_blocks_with_their_scales_are_the_specifications(level: str, name: str, data: st.DataObject) -> None:
    elements, size = packed.FORMATS[name]
    count = data.draw(st.sampled_from((1, 2, 5, 70000 // size)))
    blocks = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 256, (count, size), np.uint8)
    expected = packed.run(blocks, name).reshape(-1)
    assert expected.size == count * elements
    check_decoded(_core.Tensor.unpack_blocks(wrap_bytes(blocks), name), expected, data)


def test_codes_that_do_not_fit_their_scales_are_refused() -> None:
    codes, one = wrap_bytes(np.zeros(64, np.uint8), "F8_E4M3"), wrap(np.zeros(1, np.float32), "float32")
    for shape in ((1, 8, 8, 4, 8), (1, 8, 9, 8, 9), (0, 8, 8, 8, 8), (1, 8, 8, 0, 8), (1, 1 << 62, 4, 1 << 62, 4)):
        with pytest.raises(InternalError, match="do not fit"):
            _core.Tensor.scale_blocks(codes, one, shape)
    with pytest.raises(InternalError, match="do not fit"):
        _core.Tensor.scale_blocks(wrap_bytes(np.zeros(64, np.uint8)), one, (1, 8, 8, 8, 8))
    with pytest.raises(InternalError, match="do not fit"):
        _core.Tensor.scale_groups(wrap_bytes(np.zeros(64, np.uint8)), wrap_bytes(np.zeros(3, np.uint8)), 3, 1)
    with pytest.raises(InternalError, match="do not fit"):
        _core.Tensor.unpack_blocks(wrap_bytes(np.zeros(35, np.uint8)), "Q8_0")
    with pytest.raises(InternalError, match="no blocks"):
        _core.Tensor.unpack_blocks(wrap_bytes(np.zeros(34, np.uint8)), "Q9_9")


@ONCE_A_LEVEL
@given(data=st.data())
def test_noise_is_the_specifications(level: str, data: st.DataObject) -> None:
    count = data.draw(st.sampled_from((0, 1, 127, 511, 512, 513, 1024, 1025, 70_001)))
    dtype = data.draw(st.sampled_from(NARROW))
    base = data.draw(st.sampled_from((None, cases.make(dtype, count, 0, special=True)[0])))
    key = data.draw(st.integers(0, 2**64 - 1))
    scale = data.draw(st.sampled_from((1.0, -0.25, 1 / 3, 1e-3)))
    kind = data.draw(st.sampled_from(noise.KINDS))
    expected = noise.run(base, count, key, scale, kind)
    over = None if base is None else wrap(base, dtype)
    check_decoded(_core.Tensor.add_noise(over, count, key, scale, kind), expected, data)


def test_normal_numbers_are_the_inverse_of_the_distribution() -> None:
    ends = [2.0**-33, 1e-9, 0.0749, 0.075, 0.0751, 0.5, 0.9249, 0.925, 0.9251, 1 - 2.0**-33]
    u = np.concatenate([ends, np.random.default_rng(0).random(20_000)])
    ideal = np.array([NormalDist().inv_cdf(p) for p in u])
    np.testing.assert_allclose(noise.normal(u), ideal, rtol=1e-13, atol=1e-15)


def test_draws_are_the_ones_that_they_always_were() -> None:
    drawn = noise.run(None, 2000, 2**63 + 5, 0.5, "normal")
    assert drawn[[0, 511, 512, 1999]].tolist() == [
        0.8819751739501953, -1.062178373336792, -0.11006741225719452, -0.21754008531570435
    ]  # fmt: skip
    digest = hashlib.sha256(drawn.tobytes()).hexdigest()
    assert digest == "22ccc49c69c813e71682bd6dec41211071f20c4749a2509009b9a8c610ab5704"


def test_draws_are_as_likely_as_they_should_be() -> None:
    count = 4_000_000
    drawn = read(_core.Tensor.add_noise(None, count, 12345, 1.0, "normal"), "float32").astype(np.float64)
    # Within five standard deviations of each estimate.
    assert abs(drawn.mean()) < 5 / np.sqrt(count)
    assert abs(drawn.var() - 1) < 5 * np.sqrt(2 / count)
    assert abs((drawn**3).mean()) < 5 * np.sqrt(15 / count)
    assert abs((drawn**4).mean() - 3) < 5 * np.sqrt(96 / count)
    for edge in (0.5, 1, 2, 3, 4, 4.5):
        share = 2 * NormalDist().cdf(-edge)
        assert abs((np.abs(drawn) > edge).mean() - share) < 5 * np.sqrt(share / count)
    assert abs((drawn[1:] * drawn[:-1]).mean()) < 5 / np.sqrt(count)
    assert abs((drawn[512:] * drawn[:-512]).mean()) < 5 / np.sqrt(count)
    even = read(_core.Tensor.add_noise(None, count, 12345, 1.0, "uniform"), "float32").astype(np.float64)
    counts, _ = np.histogram(even, 100, (-1, 1))
    assert counts.sum() == count
    assert ((counts - count / 100) ** 2 / (count / 100)).sum() < 99 + 5 * np.sqrt(2 * 99)


def test_keys_share_no_draws() -> None:
    drawn = [read(_core.Tensor.add_noise(None, 4096, key, 1.0, "normal"), "float32") for key in (1, 2, 1 << 63)]
    assert all((drawn[one] != drawn[other]).mean() > 0.999 for one, other in ((0, 1), (1, 2), (0, 2)))


@pytest.mark.parametrize(("count", "kind"), [(3, "normal"), (4, "pink")])
def test_noise_that_does_not_fit_is_refused(count: int, kind: str) -> None:
    with pytest.raises(InternalError, match="noise"):
        _core.Tensor.add_noise(wrap(np.zeros(4, np.float32), "float32"), count, 1, 1.0, kind)
