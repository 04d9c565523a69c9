"""ram and ramplus_tl against their formulas, written out element by element in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pymerge


def by_formula(base: Any, tuned: list[Any], epsilon: float, r: float, alpha: float) -> Any:
    deltas = [model.astype(np.float64) - base for model in tuned]
    active = [np.abs(delta) > epsilon for delta in deltas]
    count = np.sum(active, axis=0)
    merged = base.astype(np.float64)
    for delta, mine in zip(deltas, active, strict=True):
        shared, alone = np.sum(mine & (count > 1)), np.sum(mine & (count == 1))
        factor = 1 + r * min(alpha, max(0.0, shared / max(alone, epsilon)))
        merged = merged + np.where(mine, delta * np.where(count == 1, factor, 1 / np.maximum(count, 1)), 0)
    return merged


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    models=st.integers(1, 6),
    size=st.integers(1, 3000),
    dtype=st.sampled_from(["float32", "float64"]),
    epsilon=st.sampled_from([1e-5, 0.25, 0.5]),
)
def test_the_formula(seed: int, models: int, size: int, dtype: str, epsilon: float) -> None:
    # Multiples of 1/4: differences are exact, so what counts as changed is beyond doubt.
    random = np.random.default_rng(seed)
    base = (random.integers(-8, 8, size) / 4).astype(dtype)
    tuned = [
        base + (random.integers(-4, 4, size) * (random.random(size) < 0.4) / 4).astype(dtype) for _ in range(models)
    ]
    for method, parameters, numbers in (("ram", {}, (0.0, 0.0)), ("ramplus_tl", {"r": 0.3, "alpha": 0.7}, (0.3, 0.7))):
        merged = pymerge.merge_tensors(method, tuned, base=base, parameters={"epsilon": epsilon, **parameters})
        np.testing.assert_allclose(merged, by_formula(base, tuned, epsilon, *numbers), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", ["ram", "ramplus_tl"])
def test_without_fine_tunes_the_base_stays(method: str) -> None:
    base = np.array([1, np.pi], np.float32)
    assert pymerge.merge_tensors(method, [base.copy()], base=base, parameters={}).tobytes() == base.tobytes()


def test_an_epsilon_above_every_float32_keeps_the_base() -> None:
    base = np.array([1, -3e38], np.float32)
    merged = pymerge.merge_tensors("ram", [np.array([2, 3e38], np.float32)], base=base, parameters={"epsilon": 1e300})
    assert np.isinf(merged[1])
    assert merged[0] == 1
