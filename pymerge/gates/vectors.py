"""From states of prompts to rows of routers, by operations that every machine rounds alike."""

from __future__ import annotations

import math

import numpy as np

from pymerge.kernels.common.convert import Array

__all__ = ["DEGENERATE", "normalize", "point", "spread"]

#: Length below which a vector is not made longer.
_FLOOR = 1e-8
#: Condition number above which rows of a router are nearly dependent.
DEGENERATE = 5.0


def normalize(vectors: Array) -> Array:
    """[..., width] float64, each of length 1, or shorter if it is nearly 0."""
    flat = vectors.reshape(-1, vectors.shape[-1])
    # The sum that no order of terms changes.
    lengths = np.array([math.sqrt(math.fsum((row * row).tolist())) for row in flat])
    result: Array = (flat / np.maximum(lengths, _FLOOR)[:, None]).reshape(vectors.shape)
    return result


def point(positive: Array, negative: Array | None) -> Array:
    """Directions from what negative prompts give to what positive ones do, [..., width]."""
    return normalize(positive if negative is None else positive - negative)


def spread(rows: Array) -> float:
    """The condition number of [experts, width]: 1 where rows are at right angles, infinite where they depend."""
    return float(np.linalg.cond(rows))
