"""Instruction-set levels: named, forced, refused; and their conversions, pattern by pattern."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from execute import merges

from pymerge import _core
from pymerge.backends.cpu import CpuOps
from pymerge.dtypes import BY_NAME
from pymerge.errors import BackendError
from pymerge.kernels.common.convert import NUMPY_DTYPES
from pymerge.ops import WeightedSum

HALVES = ["float16", "bfloat16"]
# numpy warns of signaling NaN and of overflow, which are among the patterns.
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")


@pytest.fixture(params=merges.levels())
def level(request: pytest.FixtureRequest) -> Any:
    """One level, in force during the test."""
    with merges.forced(request.param):
        yield request.param


def convert(values: np.ndarray, dtype: str) -> np.ndarray:
    """The values times one, stored in another type."""
    out = np.empty(values.size, NUMPY_DTYPES[dtype])
    CpuOps().combine(WeightedSum((0,), (1.0,)), [values], BY_NAME["float32"], out)
    return out


def same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    """Equal bit for bit, but any NaN is equal to any other."""
    word = np.dtype(f"u{left.itemsize}")
    both_nan = np.isnan(left) & np.isnan(right)
    return bool((both_nan | (left.view(word) == right.view(word))).all())


def all_patterns(dtype: str) -> np.ndarray:
    return np.arange(1 << 16, dtype=np.uint16).view(NUMPY_DTYPES[dtype])


def around_every_tie(dtype: str) -> np.ndarray:
    """float32 values: each half's, the middle to its neighbor, and the ones beside both; and a sweep."""
    patterns = all_patterns(dtype)
    ordered = np.unique(patterns[np.isfinite(patterns)].astype(np.float32))
    middles = (ordered[:-1].astype(np.float64) + ordered[1:]) / 2
    exact = np.concatenate([ordered, middles.astype(np.float32), np.float32([np.inf, 3.4e38, 65520, 65519.996])])
    beside = [np.nextafter(exact, np.float32(end)) for end in (-np.inf, np.inf)]
    sweep = np.arange(0, 1 << 32, 4099, dtype=np.uint64).astype(np.uint32).view(np.float32)
    return np.concatenate([exact, -exact, *beside, sweep])


@pytest.mark.parametrize("dtype", HALVES)
def test_every_half_is_widened_exactly(level: str, dtype: str) -> None:
    patterns = all_patterns(dtype)
    assert same_bits(convert(patterns, "float32"), patterns.astype(np.float32))


@pytest.mark.parametrize("dtype", HALVES)
def test_every_half_survives_a_merge_with_itself(level: str, dtype: str) -> None:
    patterns = all_patterns(dtype)
    assert same_bits(convert(patterns, dtype), patterns)


@pytest.mark.parametrize("dtype", HALVES)
def test_floats_are_rounded_to_the_nearest_half_ties_to_even(level: str, dtype: str) -> None:
    values = around_every_tie(dtype)
    assert same_bits(convert(values, dtype), values.astype(NUMPY_DTYPES[dtype]))


def test_the_levels_agree_on_every_sum_of_halves() -> None:
    usable = [name for name, supported in _core.isa_levels() if supported]
    left = all_patterns("float16")
    right = np.random.default_rng(6).permutation(left)
    words = []
    for name in usable:
        out = np.empty(left.size, ml_dtypes.bfloat16)
        with merges.forced(name):
            CpuOps().combine(WeightedSum((0, 1), (0.3, -1.7)), [left, right], BY_NAME["float32"], out)
        words.append(out.view(np.uint16))
    assert all((each == words[0]).all() for each in words)


def test_the_best_level_is_in_use_unless_told_otherwise() -> None:
    best = [name for name, supported in _core.isa_levels() if supported][-1]
    assert report_level(None) == best
    assert report_level("") == best


@pytest.mark.parametrize("name", merges.levels())
def test_the_environment_forces_a_level(name: str) -> None:
    assert report_level(name) == name


def test_a_level_that_does_not_exist_is_refused_with_those_that_do() -> None:
    assert report_level("v9") == f"PYMERGE_ISA=v9: not one of {', '.join(name for name, _ in _core.isa_levels())}"
    with pytest.raises(BackendError, match="not one of"):
        _core.force_isa("v9")


def report_level(forced: str | None) -> str:
    """What a fresh process with PYMERGE_ISA set says that it uses."""
    environment = {key: value for key, value in os.environ.items() if key != "PYMERGE_ISA"}
    environment |= {} if forced is None else {"PYMERGE_ISA": forced}
    code = (
        "from pymerge import _core; from pymerge.errors import BackendError\n"
        "try: print(_core.active_isa())\nexcept BackendError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.strip()
