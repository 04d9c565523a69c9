"""Decompositions against what numpy finds in float64: values, errors, ranks."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pymerge.extract.decompose import (
    OVERSAMPLING,
    Wanted,
    choose_method,
    decompose,
    estimate_memory,
    measure_error,
    square,
)
from pymerge.kernels.common.convert import encode

METHODS = ("exact", "randomized")
SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40)) | st.sampled_from([(1, 300), (300, 1), (7, 250), (250, 7)])


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:
    """[m, n] float32 of any scale, of bfloat16's values or not, of full or of low rank, or all zeros."""
    shape = draw(SHAPES)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    rank = draw(st.none() | st.integers(0, 3))
    values = random.standard_normal(shape)
    if rank is not None:
        values = random.standard_normal((shape[0], rank)) @ random.standard_normal((rank, shape[1]))
    values = (values * 10.0 ** draw(st.integers(-6, 6) | st.sampled_from([-30, 30, 36]))).astype(np.float32)
    return values.astype(ml_dtypes.bfloat16).astype(np.float32) if draw(st.booleans()) else values


def spectrum(matrix: np.ndarray) -> np.ndarray:
    return np.linalg.svd(matrix.astype(np.float64), compute_uv=False)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=40, deadline=None)
@given(delta=matrices(), rank=st.integers(1, 12))
def test_no_product_of_that_rank_is_nearer(method: Any, delta: np.ndarray, rank: int) -> None:
    found = decompose(delta, Wanted(rank), method=method)
    a, b = found.factors(distribute=True)
    values = spectrum(delta)
    best = np.sqrt(np.sum(values[rank:] ** 2))
    assert found.rank <= min(rank, *delta.shape)
    # Small matrices: a sketch with 16 columns more is next to exact; what is left is float32.
    assert np.sqrt(measure_error(delta, a, b)) <= best * 1.01 + values[0] * 1e-5
    np.testing.assert_allclose(found.s, values[: found.rank], rtol=1e-2, atol=values[0] * 1e-6)
    assert found.square == pytest.approx(float(np.sum(delta.astype(np.float64) ** 2)), rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(delta=matrices(), distribute=st.booleans(), dtype=st.sampled_from(["float32", "bfloat16"]))
def test_the_error_is_that_of_the_factors_as_they_are_stored(delta: np.ndarray, distribute: bool, dtype: str) -> None:
    a, b = decompose(delta, Wanted(3)).factors(distribute=distribute)
    a, b = encode(a, dtype), encode(b, dtype)
    dense = delta.astype(np.float64) - b.astype(np.float64) @ a.astype(np.float64)
    assert measure_error(delta, a, b) == pytest.approx(float(np.sum(dense**2)), rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=40, deadline=None)
@given(delta=matrices(), energy=st.floats(0.05, 0.999))
def test_the_rank_is_the_least_that_keeps_the_energy(method: Any, delta: np.ndarray, energy: float) -> None:
    found = decompose(delta, Wanted(50, energy=energy), method=method)
    squares = spectrum(delta) ** 2
    total = squares.sum()
    if not total:
        assert found.rank == 0
        return
    assert found.kept >= energy * (1 - 1e-5)
    assert squares[: found.rank - 1].sum() < energy * total * (1 + 1e-5)


def test_the_largest_rank_bounds_the_energy() -> None:
    found = decompose(np.eye(8, dtype=np.float32), Wanted(2, energy=0.9))
    assert (found.rank, found.kept) == (2, pytest.approx(0.25))


@pytest.mark.parametrize("method", METHODS)
def test_singular_values_up_to_epsilon_are_dropped(method: Any) -> None:
    delta = np.diag(np.array([5, 3, 2, 1], np.float32))
    assert decompose(delta, Wanted(4, epsilon=2.5), method=method).rank == 2
    assert decompose(delta, Wanted(4, epsilon=9), method=method).rank == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("distribute", "a", "b"), [(True, [[2, 0]], [[2], [0]]), (False, [[4, 0]], [[1], [0]])])
def test_where_the_singular_values_go(method: Any, distribute: bool, a: Any, b: Any) -> None:
    found = decompose(np.diag(np.array([4, 1], np.float32)), Wanted(1), method=method)
    factors = found.factors(distribute=distribute)
    sign = np.sign(factors[0][0, 0])
    for factor, expected in zip(factors, (a, b), strict=True):
        np.testing.assert_allclose(sign * factor, expected, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(delta=matrices())
def test_a_transpose_has_the_factors_of_the_other_side(delta: np.ndarray) -> None:
    found = decompose(delta, Wanted(4))
    a, b = found.factors(distribute=True)
    turned = found.turned().factors(distribute=True)
    np.testing.assert_array_equal(turned[0], b.T)
    np.testing.assert_array_equal(turned[1], a.T)


def test_a_sketch_is_its_seed_and_name() -> None:
    delta = np.random.default_rng(0).standard_normal((120, 150)).astype(np.float32)
    one, same, other, named = (
        decompose(delta, Wanted(4), method="randomized", seed=seed, name=name).s.tobytes()
        for seed, name in ((0, "a"), (0, "a"), (1, "a"), (0, "b"))
    )
    assert one == same
    assert len({one, other, named}) == 3


def test_a_sketch_of_a_slowly_falling_spectrum_is_within_a_hundredth_of_the_best() -> None:
    random = np.random.default_rng(0)
    u, v = (np.linalg.qr(random.standard_normal((200, 200)))[0] for _ in range(2))
    values = (1 + np.arange(200)) ** -0.25
    delta = np.ascontiguousarray((u * values) @ v.T, np.float32)
    a, b = decompose(delta, Wanted(32), method="randomized").factors(distribute=True)
    assert np.sqrt(measure_error(delta, a, b)) <= 1.01 * np.sqrt(np.sum(values[32:] ** 2))


def test_a_sketch_is_taken_where_it_is_much_narrower_than_the_matrix() -> None:
    width = 16 + OVERSAMPLING
    assert choose_method((3 * width, 9999), 16, "auto") == "exact"
    assert choose_method((9999, 3 * width + 1), 16, "auto") == "randomized"
    assert choose_method((10, 10), 16, "randomized") == "randomized"


def test_squares_do_not_overflow() -> None:
    assert square(np.full((2, 2), 1e30, np.float32)) == pytest.approx(4e60)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_held_stays_below_the_estimate(method: Any) -> None:
    import tracemalloc

    delta = np.random.default_rng(0).standard_normal((400, 500)).astype(np.float32)
    tracemalloc.start()
    try:
        found = decompose(delta, Wanted(32), method=method)
        measure_error(delta, *found.factors(distribute=True))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak + delta.nbytes <= estimate_memory((400, 500), 32, method)
