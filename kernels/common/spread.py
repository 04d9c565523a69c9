"""How far apart tensors are at each element: what SCE selects by."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from .convert import Array, decode

__all__ = ["spread"]


def spread(tensors: Sequence[Array], compute: str) -> Array:
    """Return V = sum over pairs i < j of (X_i - X_j)^2, pairs in order; [n] of the compute type.

    That is n^2 times the variance (of the tensors, and so of their task vectors), without a mean that
    would be rounded: V is zero where all are equal, unless every square underflows.
    """
    values = [decode(tensor, compute) for tensor in tensors]
    total = np.zeros_like(values[0])
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for left, right in combinations(values, 2):
            apart = left - right
            total = total + apart * apart
    return total
