"""gram: pairwise inner products.

    G[i, j] = sum_e V_i[e] V_j[e],   V_i = X_i, or D_i = X_i - B where there is a base

In: n tensors [N] of any mergeable dtype, optionally a base [N]. Out: [n, n] float64.
Passes over the inputs: 1. Products and sums in float32 where every product is exact in it (all
inputs bfloat16 or float16, no base), else in float64; canonical order (common/canonical.py).
Infinities and NaN propagate.

Per line (`run_lines`): the same for each of the vectors that the tensors are cut into, rows (runs of
`length`) or columns (every `count`-th element). Out: [count, n (n + 1) / 2] float64, the upper triangle.
Rows have the lanes above; columns are added in float64 (`row_sums`, `column_sums` of canonical.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..common.canonical import column_sums, row_sums, tile_sums
from ..common.convert import Array, decode
from ..common.exact import exact_sum

PASSES = 1

#: Relative to sqrt(G[i, i] G[j, j]): 32 additions in a lane and 5 in the tree of float32, 2^-24 each, with room.
TOLERANCE = 4e-6


def is_narrow(tensors: Sequence[Any], base: Any, compute: str) -> bool:
    """Whether every product is exact in float32, so that the lanes are float32."""
    return compute == "float32" and base is None and all(tensor.dtype.itemsize == 2 for tensor in tensors)


def _values(tensors: Sequence[Array], base: Array | None, compute: str, narrow: bool) -> list[Array]:
    values = [decode(tensor, compute) for tensor in tensors]
    if base is not None:
        values = [value - decode(base, compute) for value in values]
    return [value.astype(np.float32 if narrow else np.float64) for value in values]


def run(tensors: Sequence[Array], base: Array | None, compute: str) -> tuple[tuple[float, ...], ...]:
    """The contract, bit for bit."""
    with np.errstate(over="ignore", invalid="ignore"):
        wide = _values(tensors, base, compute, is_narrow(tensors, base, compute))
        rows = [
            [exact_sum(tile_sums(wide[min(i, j)] * wide[max(i, j)])) for j in range(len(wide))]
            for i in range(len(wide))
        ]
    return tuple(map(tuple, rows))


def run_lines(tensors: Sequence[Array], base: Array | None, lines: tuple[int, int, bool], compute: str) -> Array:
    """The contract per line, bit for bit; `lines` is (count, length, strided)."""
    count, length, strided = lines
    narrow = is_narrow(tensors, base, compute) and not strided
    with np.errstate(over="ignore", invalid="ignore"):
        wide = _values(tensors, base, compute, narrow)
        products = [wide[i] * wide[j] for i in range(len(wide)) for j in range(i, len(wide))]
    sums = [column_sums(terms, count) if strided else row_sums(terms, length) for terms in products]
    return np.stack(sums, axis=1)


def ideal(tensors: Sequence[Array], base: Array | None) -> Array:
    """The formula in long double."""
    stacked = np.stack([decode(tensor, "float64").astype(np.longdouble) for tensor in tensors])
    if base is not None:
        stacked = stacked - decode(base, "float64").astype(np.longdouble)
    result: Array = stacked @ stacked.T
    return result
