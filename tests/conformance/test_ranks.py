"""Masks by rank: the specification's bits wherever rows begin and end, and what it says about chances."""

from __future__ import annotations

from typing import Any

import kernel_cases as cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pymerge.backends.cpu import CpuOps
from pymerge.backends.protocol import Ops
from pymerge.backends.reference import ReferenceOps
from pymerge.dtypes import BY_NAME
from pymerge.kernels.common.canonical import BLOCK, TILE
from pymerge.kernels.common.convert import NUMPY_DTYPES
from pymerge.kernels.common.ranks import CLASSES, SEGMENT, classes, thresholds
from pymerge.ops import KEEP_ALL, KEEP_NONE, Bernoulli, MaskedSum, Overlap, RankBernoulli, TaskMerge

REFERENCE = ReferenceOps()
#: Elements of a row, and of the tensor: single ones, rows that are compared and rows that are counted, ends
#: inside of blocks and at their edges, whole and cut segments, a last row that is not full.
SHAPES = (
    (1, 0),
    (1, 33),
    (2, 205),
    (3, 299),
    (63, 1500),
    (64, 1024),
    (65, 65 * 20),
    (777, 5 * 777),
    (BLOCK - 1, 4 * (BLOCK - 1)),
    (BLOCK, 3 * BLOCK),
    (BLOCK + 1, 3 * (BLOCK + 1)),
    (4096, 3 * 4096 + 5),
)
LONG_SHAPES = (
    (SEGMENT, 2 * SEGMENT),
    (SEGMENT + 1, 2 * (SEGMENT + 1)),
    (100_000, 100_000),
    (1 << 18, 1 << 19),
    (5000, TILE + 12_345),
    (3072, TILE + 12_345),
)
DENSITY, EPSILON = 0.5, 0.15


def rule(key: int, row: int, density: float = DENSITY, epsilon: float = EPSILON) -> RankBernoulli:
    return RankBernoulli(density, epsilon, key, row)


def compute_of(dtype: str) -> Any:
    return BY_NAME["float64" if dtype == "float64" else "float32"]


def agree(ops: Ops, operands: list[Any], dtype: str, row: int, *, thorough: bool = True) -> None:
    """Every kernel that takes mask rules gives the specification's bits."""
    length = operands[0].size
    rules = (rule(1, row), rule(1 << 63, row, 0.3, 0.1), KEEP_ALL, Bernoulli(9999, 5), KEEP_NONE)
    compute = compute_of(dtype)
    for chosen in (rules[:2], rules) if thorough else (rules[:2],):
        sources = tuple(range(1, 1 + len(chosen)))
        measures = [MaskedSum(sources, chosen, 0)]
        if thorough:
            measures += [MaskedSum(sources, chosen, 0, "l2"), MaskedSum(sources, chosen), Overlap(sources, chosen, 0)]
        for request in measures:
            if not cases.is_chosen(request, dtype, row, length):
                continue
            answers = [repr(each.measure(request, operands, compute)) for each in (ops, REFERENCE)]
            assert answers[0] == answers[1], (row, length, request)
        weights = (0.5, -0.25, 1.0, 0.5, 0.125)[: len(chosen)]
        for how in ("none", "sum", "count", "overlap") if thorough else ("sum",):
            combine = TaskMerge(0, sources, chosen, weights, how, weights, True, 0.9)
            if not cases.is_chosen(combine, dtype, row, length):
                continue
            outs = [cases.guarded(length, NUMPY_DTYPES["bfloat16"]) for _ in range(2)]
            for each, (_, inner) in zip((ops, REFERENCE), outs, strict=True):
                each.combine(combine, operands, compute, inner)
            assert outs[0][1].tobytes() == outs[1][1].tobytes(), (row, length, how)
            assert cases.guards_untouched(outs[0][0])


@pytest.mark.parametrize("special", [False, True], ids=["ordinary", "special"])
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_every_backend(ops: Ops, dtype: str, special: bool) -> None:
    for row, length in SHAPES:
        operands = [cases.unaligned(operand) for operand in cases.make(dtype, length, 5, special=special)]
        agree(ops, operands, dtype, row)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
@pytest.mark.parametrize(("row", "length"), LONG_SHAPES)
def test_segments_and_tiles(dtype: str, row: int, length: int) -> None:
    agree(CpuOps(2), cases.make(dtype, length, 2, special=True), dtype, row, thorough=False)


@pytest.mark.parametrize("special", [False, True], ids=["ordinary", "special"])
@pytest.mark.parametrize("compute", ["float32", "float64"])
def test_mask(ops: Ops, compute: str, special: bool) -> None:
    for row, length in (*SHAPES, *LONG_SHAPES[:4]):
        if not cases.is_chosen(row, length, compute, special):
            continue
        (_, delta) = cases.make(compute, length, 1, special=special)
        outs = [cases.guarded(length, np.int8) for _ in range(2)]
        for each, (_, inner) in zip((ops, REFERENCE), outs, strict=True):
            each.mask(rule(3, row), delta, inner)
        assert np.array_equal(outs[0][1], outs[1][1]), (row, length)
        assert cases.guards_untouched(outs[0][0])


def test_every_thread_count(threads: int) -> None:
    length = 3 * TILE + 12_345
    operands = cases.make("bfloat16", length, 2)
    for row in (777, 4096, 40_000, 100_000):
        rules = (rule(1, row), rule(2, row))
        request, combine = MaskedSum((1, 2), rules, 0), TaskMerge(0, (1, 2), rules, (1.0, 0.5))
        one, many = CpuOps(1), CpuOps(threads)
        answers = [ops.measure(request, operands, BY_NAME["float32"]) for ops in (one, many)]
        assert answers[0] == answers[1]
        outs = [np.empty(length, NUMPY_DTYPES["bfloat16"]) for _ in range(2)]
        for ops, out in zip((one, many), outs, strict=True):
            ops.combine(combine, operands, BY_NAME["float32"], out)
        assert outs[0].tobytes() == outs[1].tobytes()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from(cases.DTYPES),
    row=st.integers(1, 3000),
    length=st.integers(0, 6000),
    density=st.floats(0, 1),
    epsilon=st.floats(0, 1),
)
def test_any_bit_pattern(seed: int, dtype: str, row: int, length: int, density: float, epsilon: float) -> None:
    """Arbitrary bits, NaN payloads and denormals included; chances that pass 0 and 1 as well."""
    raw = np.random.default_rng(seed).bytes(2 * length * NUMPY_DTYPES[dtype].itemsize)
    operands = list(np.frombuffer(raw, NUMPY_DTYPES[dtype]).reshape(2, length))
    request = TaskMerge(0, (1,), (rule(seed, row, density, epsilon),), (0.5,))
    outs = [np.empty(length, NUMPY_DTYPES[dtype]) for _ in range(2)]
    for ops, out in zip((CpuOps(2), REFERENCE), outs, strict=True):
        ops.combine(request, operands, compute_of(dtype), out)
    assert outs[0].tobytes() == outs[1].tobytes()


ROWS = st.integers(0, 2**32).map(np.random.default_rng)


def any_row(random: np.random.Generator, size: int, kind: str) -> Any:
    """A row of ordinary numbers, of few distinct ones, of many magnitudes, or with all kinds of special ones."""
    if kind == "few":
        return random.integers(-3, 4, size).astype(np.float32)
    values = random.standard_normal(size)
    if kind == "wide":
        values = values * 2.0 ** random.integers(-120, 120, size)
    if kind == "special":
        values = np.where(
            random.random(size) < 0.2, random.choice([0, -0.0, 1e-45, np.inf, -np.inf, np.nan], size), values
        )
    return values.astype(np.float32)


KINDS = st.sampled_from(["ordinary", "few", "wide", "special"])


class TestChances:
    @settings(max_examples=100, deadline=None)
    @given(random=ROWS, size=st.integers(1, 3000), kind=KINDS)
    def test_the_mean_is_the_density(self, random: np.random.Generator, size: int, kind: str) -> None:
        """To half of a draw's step: what rounding can do to each."""
        for density, epsilon in ((0.5, 0.15), (0.2, 0.1), (0.9, 0.05), (0.37, 0.0)):
            made = thresholds(any_row(random, size, kind), density, epsilon, size)
            assert abs(made.mean() / 65_536 - density) <= 2**-17
            assert made.min() >= np.floor((density - epsilon) * 65_536)
            assert made.max() <= np.ceil((density + epsilon) * 65_536)

    @settings(max_examples=100, deadline=None)
    @given(random=ROWS, size=st.integers(1, 2000), kind=KINDS)
    def test_what_is_larger_is_never_less_likely(self, random: np.random.Generator, size: int, kind: str) -> None:
        row = any_row(random, size, kind)
        order = np.argsort(np.abs(row), kind="stable")  # NaN last
        magnitudes, made = np.abs(row[order]), thresholds(row, DENSITY, EPSILON, size)[order]
        assert (np.diff(made) >= 0).all()
        assert (np.diff(made)[magnitudes[1:] == magnitudes[:-1]] == 0).all()

    @settings(max_examples=100, deadline=None)
    @given(random=ROWS, size=st.integers(1, 2000), kind=KINDS)
    def test_order_and_sign_do_not_matter(self, random: np.random.Generator, size: int, kind: str) -> None:
        row = any_row(random, size, kind)
        places = random.permutation(size)
        signs = np.where(random.random(size) < 0.5, np.float32(-1), np.float32(1))
        made = thresholds(row, DENSITY, EPSILON, size)
        assert np.array_equal(made[places], thresholds(row[places] * signs[places], DENSITY, EPSILON, size))

    def test_rows_of_a_tensor_are_ranked_one_by_one(self) -> None:
        tensor = np.random.default_rng(0).standard_normal((7, 333)).astype(np.float32)
        whole = thresholds(tensor.reshape(-1), DENSITY, EPSILON, 333).reshape(7, 333)
        for row, made in zip(tensor, whole, strict=True):
            assert np.array_equal(thresholds(row, DENSITY, EPSILON, 333), made)

    def test_the_paper(self) -> None:
        """Distinct magnitudes of a row: equal steps from density - epsilon to density + epsilon."""
        made = thresholds(np.array([1, -2, 3, -4, 5], np.float32), DENSITY, 0.2, 5)
        np.testing.assert_allclose(made / 65_536, [0.3, 0.4, 0.5, 0.6, 0.7], atol=2**-17)

    def test_all_chances_differ_from_the_paper_by_a_class_at_most(self) -> None:
        """Against ranks by sorting: half of the largest class's share, here less than 4 % of the row."""
        row = np.random.default_rng(1).standard_normal(4096).astype(np.float32)
        exact = np.empty(4096)
        exact[np.argsort(np.abs(row))] = 0.35 + 0.3 * np.arange(4096) / 4095
        largest = np.bincount(classes(row)).max()
        assert largest < 0.04 * 4096
        error = np.abs(thresholds(row, DENSITY, EPSILON, 4096) / 65_536 - exact)
        assert error.max() <= 0.3 * largest / 2 / 4095 + 2**-16

    def test_special_rows(self) -> None:
        for row in ([0.0] * 9, [2.0], [np.nan] * 3, [-np.inf, np.inf], [1e-45] * 2):
            made = thresholds(np.array(row, np.float32), DENSITY, EPSILON, len(row))
            assert set(made.tolist()) == {32_768}
        made = classes(np.array([np.inf, np.nan, 3.4e38, 1.0, 0.0], np.float32))
        assert made.tolist() == [CLASSES - 1, CLASSES - 1, CLASSES - 2, 0, 0]

    def test_a_threshold_stays_between_never_and_always(self) -> None:
        made = thresholds(np.arange(1, 4, dtype=np.float32), 0.5, 0.5, 3)
        assert made.tolist() == [1, 32_768, 65_535]
