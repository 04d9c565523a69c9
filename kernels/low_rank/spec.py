"""low_rank: a matrix with low-rank updates added; derived while it is read, before any kernel sees it.

    Y[i, c] = X[i, c] + s_1 P_1[i, c] + s_2 P_2[i, c] + ...,   P_u[i, c] = sum over j of B_u[i, j] A_u[j, c]

In: X [rows, columns] (none: zeros), A_u [rank_u, columns], B_u [rows, rank_u], each of any mergeable dtype but float64;
if an update is transposed, A_u is stored as [columns, rank_u] and B_u as [rank_u, rows] (embeddings; layers that keep
their weights as [in, out]). s_u is float64, rounded once to float32. Out: float32 [rows, columns].
Everything in float32: P_u added from zero in the order of j, products rounded, no contraction; then one product with
s_u and one sum for each update, in order. Passes: X once for each pass over Y; A and B once, held as float32.

Source: Hu et al. 2021 (LoRA), section 4.1; s = alpha / rank, or alpha / sqrt(rank) (Kalajdzievski 2023).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..common.convert import Array, decode

#: (A, B, rank, scale, transposed), A and B flat.
Update = tuple[Array, Array, int, float, bool]


def run(base: Array | None, updates: Sequence[Update], rows: int, columns: int) -> Array:
    """The contract, bit for bit; `base` and the result are flat."""
    out = np.zeros((rows, columns), np.float32) if base is None else decode(base, "float32").reshape(rows, columns)
    with np.errstate(all="ignore"):
        for a, b, rank, scale, transposed in updates:
            left = _matrix(b, rows, rank, transposed)
            right = _matrix(a, rank, columns, transposed)
            product = np.zeros((rows, columns), np.float32)
            for j in range(rank):
                product += left[:, j, None] * right[j]
            out = out + np.float32(scale) * product
    return out.reshape(-1)


def ideal(base: Array | None, updates: Sequence[Update], rows: int, columns: int) -> Array:
    """The formula in float64."""
    out = np.zeros((rows, columns)) if base is None else decode(base, "float64").reshape(rows, columns)
    for a, b, rank, scale, transposed in updates:
        left, right = _matrix(b, rows, rank, transposed), _matrix(a, rank, columns, transposed)
        out = out + scale * (left.astype(np.float64) @ right.astype(np.float64))
    return out.reshape(-1)


def _matrix(stored: Array, rows: int, columns: int, transposed: bool) -> Array:
    values = decode(stored, "float32")
    return values.reshape(columns, rows).T if transposed else values.reshape(rows, columns)
