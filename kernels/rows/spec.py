"""rows: a matrix whose rows are taken from other matrices; derived while it is read, before any kernel sees it.

    Y[r] = 0                                                        if starts[r] = starts[r + 1]
    Y[r] = X[parts[k]][rows[k]]                                     if k = starts[r] is the only one
    Y[r] = (sum over starts[r] <= k < starts[r + 1] of R(k)) / n    else; n of them, added in order from zero
    R(k) = X[parts[k]][rows[k]], or the mean of all rows of X[parts[k]] where rows[k] = -1

In: matrices [*, width], flat, of mergeable dtypes, and the choice. Out: flat [rows * width]. Plain copies keep their
bits where all rows are such and the matrices are of one dtype, which is the output's; else the output is float32, sums
and quotients in float32. The mean of all rows is a sum in float64, row by row from the first, divided there, and
rounded to float32. Which embedding rows these are is decided in pymerge/vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..common.convert import NUMPY_DTYPES, Array, decode


def run(
    matrices: Sequence[Array], starts: Sequence[int], parts: Sequence[int], rows: Sequence[int], width: int, dtype: str
) -> Array:
    """The contract, bit for bit; `dtype` is the output's."""
    sources = [matrix.reshape(-1, width) for matrix in matrices]
    out = np.zeros((len(starts) - 1, width), NUMPY_DTYPES[dtype])
    first, size = np.asarray(starts[:-1]), np.diff(np.asarray(starts))
    chosen, at = np.asarray(rows, np.int64), np.asarray(parts, np.int64)
    plain = np.flatnonzero(size == 1)
    plain = plain[chosen[first[plain]] >= 0]
    for number, source in enumerate(sources):
        here = plain[at[first[plain]] == number]
        picked = source[chosen[first[here]]]
        out[here] = picked if picked.dtype == out.dtype else decode(picked, dtype)
    for row in np.setdiff1d(np.flatnonzero(size), plain):
        out[row] = _mean([_row(sources[at[k]], chosen[k]) for k in range(starts[row], starts[row + 1])])
    return out.reshape(-1)


def _row(source: Array, row: int) -> Array:
    if row >= 0:
        return decode(source[row], "float32")
    total = np.zeros(source.shape[1])
    with np.errstate(all="ignore"):
        for each in source:
            total += decode(each, "float64")
        mean: Array = (total / len(source)).astype(np.float32)
    return mean


def _mean(values: Sequence[Array]) -> Array:
    total = np.zeros_like(values[0])
    with np.errstate(all="ignore"):
        for value in values:
            total += value
        mean: Array = total / np.float32(len(values))
    return mean
