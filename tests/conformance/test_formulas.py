"""The specifications themselves: against float64 formulas, known answers, and statistics."""

from __future__ import annotations

import kernel_cases as cases
import ml_dtypes
import numpy as np
import pytest

from pymerge.backends.reference import ReferenceOps
from pymerge.dtypes import BY_NAME
from pymerge.kernels.common.convert import NUMPY_DTYPES, decode, encode, narrow_to_odd
from pymerge.kernels.common.random import draws, philox4x32
from pymerge.kernels.gram import spec as gram
from pymerge.kernels.mask import spec as mask
from pymerge.kernels.masked_sum import spec as masked_sum
from pymerge.kernels.near_swap import spec as near_swap
from pymerge.kernels.row_divergence import spec as row_divergence
from pymerge.kernels.select import spec as select
from pymerge.kernels.weighted_sum import spec as weighted_sum
from pymerge.ops import KEEP_ALL, Bernoulli


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_gram_is_within_its_tolerance(dtype: str) -> None:
    operands = cases.make(dtype, 50_000, 2)
    compute = "float64" if dtype == "float64" else "float32"
    ideal = gram.ideal(operands, None)
    scale = np.sqrt(np.outer(np.diag(ideal), np.diag(ideal)))
    error = np.abs(np.asarray(gram.run(operands, None, compute)) - ideal) / scale
    assert error.max() < gram.TOLERANCE


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_weighted_sum_is_half_an_ulp_from_the_formula(dtype: str) -> None:
    operands = cases.make(dtype, 20_000, 2)
    coefficients = [0.3, 0.5, 0.2]
    compute = "float64" if dtype == "float64" else "float32"
    got = decode(weighted_sum.run(operands, None, coefficients, compute, dtype), "float64")
    ideal = weighted_sum.ideal(operands, coefficients)
    half_ulp = np.abs(np.spacing(ideal.astype(np.float32)).astype(np.float64)) / 2
    half_ulp *= {"bfloat16": 2**16, "float16": 2**13, "float32": 1, "float64": 0}[dtype]
    if dtype == "float16":
        half_ulp = np.maximum(half_ulp, 2.0**-25)  # float16's denormals
    assert (np.abs(got - ideal) <= half_ulp * 1.001 + weighted_sum.bound(operands, coefficients)).all()


def test_select_keeps_exactly_k_and_breaks_ties_by_index() -> None:
    delta = np.array([3, -1, 3, 0, -3, 2], np.float32)
    for count in range(7):
        ((bits, last),) = select.run([delta], None, [count], "float32")
        kept = mask.run(("band", bits, last, (1 << 64) - 1, -1), delta)
        assert kept.sum() == count
    ((bits, last),) = select.run([delta], None, [2], "float32")
    assert mask.run(("band", bits, last, (1 << 64) - 1, -1), delta).tolist() == [1, 0, 1, 0, 0, 0]


def test_masked_sum_adds_magnitudes() -> None:
    delta = np.array([1, -2, 3, -4, 5], np.float32)
    rule = ("band", np.float32(4).view(np.uint32).item(), 3, (1 << 64) - 1, -1)
    assert masked_sum.run([delta], None, [rule], "l1", "float32") == ((15.0, 9.0, 2),)


class TestRandomNumbers:
    def test_philox_gives_the_published_answers(self) -> None:
        """Known answers of the Random123 distribution for ten rounds, counter and key all zero."""
        words = philox4x32(np.zeros(1, np.uint64), key=0, rounds=10)[0]
        assert [f"{word:08x}" for word in words] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]

    def test_draws_do_not_depend_on_the_length(self) -> None:
        assert np.array_equal(draws(42, 5000)[:1025], draws(42, 1025))

    def test_kept_fraction(self) -> None:
        """Within four standard deviations, for several probabilities."""
        n = 400_000
        for keep in (655, 32_768, 60_000):
            share = mask.run(("bernoulli", keep, 11), np.zeros(n, np.float32)).mean()
            p = keep / 65_536
            assert abs(share - p) < 4 * np.sqrt(p * (1 - p) / n)

    def test_streams_and_neighbors_are_independent(self) -> None:
        n = 400_000
        one, other = (draws(key, n) < 32_768 for key in (1, 2))
        limit = 4 / np.sqrt(n)
        assert abs(np.corrcoef(one, other)[0, 1]) < limit
        for lag in (1, 2, 128, 1024):
            assert abs(np.corrcoef(one[:-lag], one[lag:])[0, 1]) < limit

    def test_inverse_rescaling_is_unbiased(self) -> None:
        n, p = 400_000, 0.3
        kept = mask.run(("bernoulli", round(p * 65_536), 3), np.zeros(n, np.float32)) / p
        assert abs(kept.mean() - 1) < 4 * np.sqrt((1 - p) / p / n)


class TestConversion:
    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    def test_every_16_bit_pattern_round_trips(self, dtype: str) -> None:
        patterns = np.arange(65_536, dtype=np.uint16).view(NUMPY_DTYPES[dtype])
        back = encode(decode(patterns, "float32"), dtype)
        finite = ~np.isnan(patterns.astype(np.float32))
        assert np.array_equal(back.view(np.uint16)[finite], patterns.view(np.uint16)[finite])
        assert len(set(back.view(np.uint16)[~finite].tolist())) == 1

    def test_float64_rounds_once(self) -> None:
        """A value just above a tie of bfloat16 that float32 would round onto the tie."""
        value = np.array([1 + 2.0**-8 + 2.0**-40, -(1 + 2.0**-8 + 2.0**-40)])
        up = encode(value, "bfloat16").astype(np.float64)
        assert up.tolist() == [1 + 2.0**-7, -(1 + 2.0**-7)]
        naive = value.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)
        assert naive.tolist() == [1.0, -1.0]
        assert encode(np.array([1e300, -1e-300]), "float16").astype(np.float64).tolist() == [np.inf, 0.0]

    def test_narrowing_is_exact_where_it_can_be(self) -> None:
        values = np.array([0.0, -0.0, 1.5, -2.25, np.inf, -np.inf])
        assert narrow_to_odd(values).tobytes() == values.astype(np.float32).tobytes()


def test_dropped_elements_count_as_zero_even_if_infinite() -> None:
    """A mask that drops an infinity does not turn it into NaN."""
    from pymerge.ops import KEEP_NONE, TaskMerge

    base, tuned = np.zeros(2, np.float32), np.array([np.inf, 1], np.float32)
    out = np.empty(2, np.float32)
    ReferenceOps().combine(TaskMerge(0, (1,), (KEEP_NONE,), (1.0,)), [base, tuned], BY_NAME["float32"], out)
    assert out.tolist() == [0, 0]


def test_nan_is_never_lost_in_an_election() -> None:
    """An input's NaN reaches the output, whichever side wins there."""
    from pymerge.ops import TaskMerge

    base = np.zeros(3, np.float32)
    tuned = [np.array([np.nan, 1, 1], np.float32), np.array([5, -1, -2], np.float32)]
    out = np.empty(3, np.float32)
    request = TaskMerge(0, (1, 2), (KEEP_ALL, Bernoulli(65_536, 1)), (1.0, 1.0), "sum", (1.0, 1.0), True, 1.0)
    ReferenceOps().combine(request, [base, *tuned], BY_NAME["float32"], out)
    assert np.isnan(out[0])
    assert out[1:].tolist() == [1.0, -2.0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_near_swap_is_within_its_bound(dtype: str) -> None:
    base, tuned = cases.make(dtype, 20_000, 1)
    for t in (0.004, 1e-7):
        got = decode(near_swap.run([tuned], base, t, "float32", "float32"), "float64")
        error = np.abs(got - near_swap.ideal(tuned, base, t))
        assert (error <= near_swap.bound(tuned, base, t)).all()


def test_near_swap_loses_nothing_that_is_not_finite() -> None:
    finite, wild = np.ones(3, np.float32), np.array([np.inf, -np.inf, np.nan], np.float32)
    for t in (0.5, 1e30):
        for tuned, base in ((wild, finite), (finite, wild), (wild, wild)):
            assert not np.isfinite(near_swap.run([tuned], base, t, "float32", "float32")).any()


class TestRowDivergence:
    def test_exp_and_log_are_within_their_ulps(self) -> None:
        random = np.random.default_rng(0)
        x = np.concatenate([-(10.0 ** random.uniform(-18, np.log10(700), 200_000)), [0.0, -0.0, -700.0]])
        y = np.concatenate([10.0 ** random.uniform(-9, 9, 200_000), 1 + random.uniform(-1e-6, 1e-6, 50_000), [1.0]])
        for got, ideal in (
            (row_divergence.exp(x), np.exp(x.astype(np.longdouble))),
            (row_divergence.log(y), np.log(y.astype(np.longdouble))),
        ):
            ulp = np.abs(np.spacing(ideal.astype(np.float64)))
            assert (np.abs(got - ideal) <= row_divergence.ULPS * ulp).all()

    @pytest.mark.parametrize("shift", [0, 0.01])
    @pytest.mark.parametrize(
        ("size", "move"), [(0.02, 2e-3), (0.02, 1e-6), (0.2, 1e-3), (0.7, 5e-3), (0.02, 0.1), (3, 0.2)]
    )
    @pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
    @pytest.mark.parametrize("length", [5, 4096])
    def test_follows_the_formula(self, length: int, dtype: str, size: float, move: float, shift: float) -> None:
        random = np.random.default_rng(0)
        base = (random.standard_normal(16 * length) * size).astype(NUMPY_DTYPES[dtype])
        change = random.standard_normal(base.size) * move + shift
        tuned = (base.astype(np.float64) + change).astype(NUMPY_DTYPES[dtype])
        compute = "float64" if dtype == "float64" else "float32"
        got = np.asarray(row_divergence.run([tuned], base, (16, length, False), compute))
        ideal = row_divergence.ideal(tuned, base, length)
        moved = np.abs(tuned.astype(np.float64) - base.astype(np.float64)).reshape(16, length).max(axis=1)
        assert (np.abs(got - ideal) <= row_divergence.bound(ideal, moved)).all()

    def test_is_zero_between_equals_and_nan_beside_nan(self) -> None:
        base = np.arange(16, dtype=np.float32)
        tuned = base.copy()
        tuned[5], tuned[9] = np.nan, -np.inf
        tuned[12:] += np.float32(2)
        got = row_divergence.run([tuned], base, (4, 4, False), "float32")
        assert got[0] == 0
        assert np.isnan(got[1])
        assert 0 < got[2] < np.inf
        # All of a row moved alike: the distribution is the same.
        assert got[3] < 1e-15
