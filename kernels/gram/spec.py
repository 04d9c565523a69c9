"""gram: pairwise inner products.

    G[i, j] = sum_e V_i[e] V_j[e],   V_i = X_i, or D_i = X_i - B where there is a base

In: n tensors [N] of any mergeable dtype, optionally a base [N]. Out: [n, n] float64.
Passes over the inputs: 1. Products and sums in float32 where every product is exact in it (all
inputs bfloat16 or float16, no base), else in float64; canonical order (common/canonical.py).
Infinities and NaN propagate.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..common.canonical import tile_sums
from ..common.convert import Array, decode
from ..common.exact import exact_sum

PASSES = 1

#: Relative to sqrt(G[i, i] G[j, j]): 32 additions in a lane and 5 in the tree of float32, 2^-24 each, with room.
TOLERANCE = 4e-6


def is_narrow(tensors: Sequence[Array], base: Array | None) -> bool:
    """Whether every product is exact in float32, so that the lanes are float32."""
    return base is None and all(tensor.dtype.itemsize == 2 for tensor in tensors)


def run(tensors: Sequence[Array], base: Array | None, compute: str) -> tuple[tuple[float, ...], ...]:
    """The contract, bit for bit."""
    lanes = np.float32 if compute == "float32" and is_narrow(tensors, base) else np.float64
    with np.errstate(over="ignore", invalid="ignore"):
        values = [decode(tensor, compute) for tensor in tensors]
        if base is not None:
            values = [value - decode(base, compute) for value in values]
        wide = [value.astype(lanes) for value in values]
        rows = [
            [exact_sum(tile_sums(wide[min(i, j)] * wide[max(i, j)])) for j in range(len(wide))]
            for i in range(len(wide))
        ]
    return tuple(map(tuple, rows))


def ideal(tensors: Sequence[Array], base: Array | None) -> Array:
    """The formula in long double."""
    stacked = np.stack([decode(tensor, "float64").astype(np.longdouble) for tensor in tensors])
    if base is not None:
        stacked = stacked - decode(base, "float64").astype(np.longdouble)
    result: Array = stacked @ stacked.T
    return result
