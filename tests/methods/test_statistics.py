"""What the random methods promise: how much is kept, without bias, and independently of everything else.

Masks are read off merges with a base of zeros. Every bound is a multiple of the standard deviation that
independent draws would have; with fixed seeds a test passes or fails for good.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pymerge
from pymerge.kernels.common.ranks import thresholds

METHODS = ("dare_linear", "dare_ties", "della", "della_linear")
DENSITIES = (0.25, 0.5, 0.8)
EPSILON = 0.15
SHAPE = (200, 1100)
VALUES = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
#: Standard deviations that a number may be off. One normal number in 16,000 is.
SIGMAS = 4.0


def merge(method: str, tuned: Any, density: float, *, place: int = 0, **options: Any) -> Any:
    """`tuned`, masked as the model at `place` of two, the other of which has no weight."""
    weights = [float(index == place) for index in range(2)]
    parameters: dict[str, Any] = {"weight": weights, "density": density, "rescale": options.pop("rescale", False)}
    if method.startswith("della"):
        parameters["epsilon"] = EPSILON
    return pymerge.merge_tensors(method, [tuned, tuned], base=np.zeros_like(tuned), parameters=parameters, **options)


def chances(method: str, tuned: Any, density: float) -> Any:
    """The probability that each element is kept."""
    if not method.startswith("della"):
        return np.full(tuned.shape, round(density * 65_536) / 65_536)
    made = thresholds(tuned.reshape(-1), density, EPSILON, tuned.shape[-1])
    return made.reshape(tuned.shape) / 65_536


def residuals(method: str, density: float, **options: Any) -> Any:
    """Masks less their chances, each divided by its standard deviation: mean 0, variance 1."""
    kept = merge(method, VALUES, density, **options) != 0
    p = chances(method, VALUES, density)
    return ((kept - p) / np.sqrt(p * (1 - p))).reshape(-1)


def off(products: Any) -> float:
    """How many standard deviations a mean of products of independent residuals is from 0."""
    return float(abs(products.mean()) * np.sqrt(products.size))


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("method", METHODS)
class TestMasks:
    def test_kept_fraction(self, method: str, density: float) -> None:
        kept = merge(method, VALUES, density) != 0
        p = chances(method, VALUES, density)
        assert abs(p.mean() - density) <= 2**-16
        assert abs(kept.sum() - p.sum()) < SIGMAS * np.sqrt((p * (1 - p)).sum())

    def test_every_chance_is_met(self, method: str, density: float) -> None:
        """In ten groups by magnitude within the row, from the least to the largest."""
        made = residuals(method, density).reshape(SHAPE)
        ordered = np.take_along_axis(made, np.argsort(np.abs(VALUES), axis=1), axis=1)
        for group in np.array_split(ordered, 10, axis=1):
            assert off(group) < SIGMAS

    def test_what_is_kept_is_untouched(self, method: str, density: float) -> None:
        merged = merge(method, VALUES, density)
        assert set(np.unique(merged[merged != 0] / VALUES[merged != 0])) == {1.0}

    def test_neighbors_are_independent(self, method: str, density: float) -> None:
        made = residuals(method, density)
        for lag in (1, 2, 16, 128, 1024, SHAPE[1]):
            assert off(made[:-lag] * made[lag:]) < SIGMAS, lag

    def test_sources_tensors_and_seeds_are_independent(self, method: str, density: float) -> None:
        made = residuals(method, density)
        for options in ({"place": 1}, {"name": "other"}, {"seed": 1}):
            assert off(made * residuals(method, density, **options)) < SIGMAS, options


@pytest.mark.parametrize("method", METHODS)
def test_the_mean_over_seeds_is_the_expected_value(method: str) -> None:
    """E[Y] = B + D p / density under `rescale: inverse`: D itself for DARE, and on average for DELLA."""
    tuned, density, seeds = VALUES[:8, :500], 0.4, 400
    p = chances(method, tuned, density)
    total = np.zeros(tuned.shape)
    for seed in range(seeds):
        total += merge(method, tuned, density, seed=seed, rescale="inverse", threads=1)
    deviation = np.abs(tuned) / density * np.sqrt(p * (1 - p) / seeds)
    z = (total / seeds - tuned * p / density) / deviation
    assert np.abs(z).max() < 5.5  # 4,000 normal numbers
    assert abs(z.mean()) * np.sqrt(z.size) < SIGMAS
    # The variance of squares of normal numbers is 2.
    assert abs((z**2).mean() - 1) * np.sqrt(z.size / 2) < SIGMAS
    assert abs(p.mean() / density - 1) < 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_the_default_keeps_the_norm_for_every_seed(method: str) -> None:
    for seed in range(10):
        merged = merge(method, VALUES, 0.3, seed=seed, rescale=True)
        np.testing.assert_allclose(
            np.abs(merged).sum(dtype=np.float64), np.abs(VALUES).sum(dtype=np.float64), rtol=1e-6
        )
