"""Weighted sums in their shortest form: what has no weight is not read, what is alone is copied."""

from __future__ import annotations

from collections.abc import Sequence

from pymerge.ops import Combine, Copy, WeightedSum

__all__ = ["weighted_sum"]


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
