"""Weighted sums in their shortest form: what has no weight is not read, what is alone is copied."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pymerge.errors import RecipeError
from pymerge.ops import KEEP_ALL, Combine, Copy, TaskMerge, WeightedSum

__all__ = ["cosine", "normalized", "norms_of", "span_sum", "weighted_sum"]


def norms_of(gram: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Lengths of the vectors behind a Gram matrix."""
    return tuple(math.sqrt(gram[i][i]) for i in range(len(gram)))


def cosine(product: float, length: float) -> float:
    """`product` / `length`, between -1 and 1 whatever rounding did; NaN stays."""
    value = product / length
    return max(-1.0, min(1.0, value)) if math.isfinite(value) else math.nan


def normalized(weights: Sequence[float], method: str, tensor: str, switch: str) -> tuple[float, ...]:
    """Weights divided by their sum; `switch` is the parameter that turns this off.

    Raises:
        RecipeError: they sum to 0.
    """
    total = sum(weights)
    if total == 0:
        raise RecipeError(
            f"{method}: the weights of {tensor} sum to 0, so they cannot be normalized; "
            f"change a weight or set {switch}: false"
        )
    return tuple(weight / total for weight in weights)


def weighted_sum(sources: Sequence[int], coefficients: Sequence[float]) -> Combine:
    """Return the combine for sum_i coefficients[i] * X_i.

    Sources with coefficient 0 are left out, so a dummy input costs no reading (and its infinities
    cannot turn into NaN); a single source with coefficient 1 is copied byte for byte.
    """
    used = [(s, c) for s, c in zip(sources, coefficients, strict=True) if c != 0]
    if not used:
        return WeightedSum((sources[0],), (0.0,))
    if len(used) == 1 and used[0][1] == 1:
        return Copy(used[0][0])
    return WeightedSum(tuple(s for s, _ in used), tuple(c for _, c in used))


def span_sum(base: int | None, sources: Sequence[int], coefficients: Sequence[float]) -> Combine:
    """Return the combine for B + sum_i coefficients[i] * (X_i - B), or without base as `weighted_sum`.

    Task vectors are added to the base, not folded into a coefficient of it: next to a base they are
    small, and the rounding of such a coefficient would be as large as they are.
    """
    if base is None:
        return weighted_sum(sources, coefficients)
    used = [(s, c) for s, c in zip(sources, coefficients, strict=True) if c != 0]
    if not used:
        return Copy(base)
    if len(used) == 1 and used[0][1] == 1:
        return Copy(used[0][0])
    return TaskMerge(base, tuple(s for s, _ in used), (KEEP_ALL,) * len(used), tuple(c for _, c in used))
