"""Units in the last place: against counting steps one by one, and against arithmetic."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pymerge.kernels.common.convert import NUMPY_DTYPES, decode
from pymerge.verify.ulp import distance, distance_between_types, last_place, narrower

HALVES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
words = st.integers(0, 0xFFFF)


def ladder(kind: np.dtype[Any]) -> list[int]:
    """Every finite bit pattern of a 16-bit type in the order of the numbers, -0 before +0, by sorting."""
    patterns = np.arange(1 << 16, dtype=np.uint16)
    values = decode(patterns.view(kind), "float64")
    finite = [int(pattern) for pattern in patterns[np.isfinite(values)]]
    return sorted(finite, key=lambda pattern: (values[pattern], pattern < 0x8000))


LADDERS = {name: {pattern: step for step, pattern in enumerate(ladder(kind))} for name, kind in HALVES.items()}


def number(pattern: int, name: str) -> Any:
    return np.array([pattern], np.uint16).view(HALVES[name])


@pytest.mark.parametrize("name", HALVES)
@given(first=words, second=words)
def test_it_is_the_number_of_steps_on_the_ladder_of_all_numbers(name: str, first: int, second: int) -> None:
    steps = LADDERS[name]
    left, right = number(first, name), number(second, name)
    units, apart = distance(left, right)
    if first in steps and second in steps:
        assert (int(units[0]), bool(apart[0])) == (abs(steps[first] - steps[second]), False)
    else:
        alike = bool(np.isnan(left[0]) and np.isnan(right[0])) or first == second
        assert (int(units[0]), bool(apart[0])) == (0, not alike)


@pytest.mark.parametrize("name", HALVES)
def test_all_numbers_one_step_up_are_one_unit_away(name: str) -> None:
    steps = np.array(ladder(HALVES[name]), np.uint16).view(HALVES[name])
    units, apart = distance(steps[:-1], steps[1:])
    assert not apart.any()
    assert (units == 1).all()


@pytest.mark.parametrize("name", NUMPY_DTYPES)
def test_zeros_of_both_signs_are_neighbors_and_so_are_what_is_next_to_them(name: str) -> None:
    zero = np.zeros(1, NUMPY_DTYPES[name])
    one = (zero.view(f"u{zero.itemsize}") + 1).astype(f"u{zero.itemsize}").view(zero.dtype)
    assert [int(distance(a, b)[0][0]) for a, b in ((zero, -zero), (zero, one), (-zero, -one), (-one, one))] == [
        1, 1, 1, 3,
    ]  # fmt: skip


@pytest.mark.parametrize("name", NUMPY_DTYPES)
def test_what_is_not_finite_is_alike_or_apart(name: str) -> None:
    kind = NUMPY_DTYPES[name]
    left = np.array([math.nan, math.inf, -math.inf, math.inf, math.inf, math.nan, 1.0], kind)
    right = np.array([math.nan, math.inf, -math.inf, -math.inf, 1.0, 1.0, math.nan], kind)
    units, apart = distance(left, right)
    assert apart.tolist() == [False, False, False, True, True, True, True]
    assert not units.any()


def test_the_widest_distance_of_float64_does_not_overflow() -> None:
    most = np.array([np.finfo(np.float64).max])
    assert int(distance(most, -most)[0][0]) == 2 * (0x7FF << 52) - 1
    assert int(distance_between_types(most, -most, "float64")[0][0]) == 2**54


@given(st.lists(st.floats(width=32), min_size=1), st.randoms(use_true_random=False))
def test_it_does_not_matter_which_is_first(values: list[float], random: Any) -> None:
    left = np.array(values, np.float32)
    right = np.array(random.sample(values, len(values)), np.float32)
    for there, back in zip(distance(left, right), distance(right, left), strict=True):
        assert (there == back).all()


@pytest.mark.parametrize("name", NUMPY_DTYPES)
def test_a_unit_is_how_far_the_next_number_is(name: str) -> None:
    kind = NUMPY_DTYPES[name]
    random = np.random.default_rng(0)
    numbers = np.concatenate([np.exp2(random.uniform(-10, 10, 1000)), [0.0, 1.0, 2.0, 0.5]]).astype(kind)
    above = (numbers.view(f"u{kind.itemsize}") + 1).astype(f"u{kind.itemsize}").view(kind)
    step = above.astype(np.float64) - numbers.astype(np.float64)
    assert (last_place(numbers.astype(np.float64), name) == step).all()


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_rounding_to_a_narrower_type_is_less_than_a_unit_of_it(name: str) -> None:
    exact = np.random.default_rng(1).standard_normal(1000).astype(np.float32)
    rounded = exact.astype(NUMPY_DTYPES[name])
    units, apart = distance_between_types(exact, rounded, name)
    assert not apart.any()
    assert (units == (exact != rounded.astype(np.float32))).all()


def test_of_two_types_the_one_with_fewer_bits_of_significand_counts() -> None:
    assert narrower("float32", "bfloat16") == narrower("bfloat16", "float16") == "bfloat16"
    assert narrower("float16", "float64") == "float16"
