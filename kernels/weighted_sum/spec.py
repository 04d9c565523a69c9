"""weighted_sum: a linear combination.

    Y[e] = round(c_1 X_1[e] + c_2 X_2[e] + ... + c_n X_n[e])

In: n >= 1 tensors [N] of any mergeable dtype, n coefficients (float64, rounded once to the compute
type). Out: [N] of any mergeable dtype. Passes: every input once, the output once. Products and
sums in the compute type, left to right, no contraction; one rounding to nearest even at the store.
Infinities and NaN propagate; a stored NaN is the canonical one.

Per line (`run_lines`): c_i is one number for each of the vectors that the tensors are cut into, rows
(runs of `length`) or columns (every `count`-th element); coefficients are [n, count]. With a base,
Y[e] = round(B[e] + (c_1 D_1[e] + ... + c_n D_n[e])), D_i = X_i - B.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..common.convert import NUMPY_DTYPES, Array, decode, encode
from ..common.lines import spread_lines

PASSES = 1


def run(tensors: Sequence[Array], base: None, coefficients: Sequence[float], compute: str, out_dtype: str) -> Array:
    """The contract, bit for bit; around a base this is a task_merge."""
    real = NUMPY_DTYPES[compute].type
    with np.errstate(over="ignore", invalid="ignore"):
        total = real(coefficients[0]) * decode(tensors[0], compute)
        for tensor, coefficient in zip(tensors[1:], coefficients[1:], strict=True):
            total = total + real(coefficient) * decode(tensor, compute)
    return encode(total, out_dtype)


def run_lines(
    tensors: Sequence[Array],
    base: Array | None,
    coefficients: Sequence[float],
    lines: tuple[int, int, bool],
    compute: str,
    out_dtype: str,
) -> Array:
    """The contract per line, bit for bit; `lines` is (count, length, strided)."""
    factors = np.asarray(coefficients, np.float64).reshape(len(tensors), lines[0])
    total: Array | None = None
    with np.errstate(over="ignore", invalid="ignore"):
        origin = None if base is None else decode(base, compute)
        for tensor, factor in zip(tensors, factors, strict=True):
            value = decode(tensor, compute)
            delta = value if origin is None else value - origin
            part = spread_lines(factor, lines, compute) * delta
            total = part if total is None else total + part
        assert total is not None
        return encode(total if origin is None else origin + total, out_dtype)


def ideal(tensors: Sequence[Array], coefficients: Sequence[float]) -> Array:
    """The formula in float64."""
    result: Array = np.einsum("i,ie->e", np.asarray(coefficients), [decode(t, "float64") for t in tensors])
    return result


def bound(tensors: Sequence[Array], coefficients: Sequence[float]) -> Array:
    """Largest error before the store, per element: 2 n roundings of float32, relative to sum |c X|."""
    magnitudes = ideal([np.abs(decode(t, "float64")) for t in tensors], np.abs(coefficients).tolist())
    result: Array = magnitudes * (len(tensors) + 1) * 2.0**-24
    return result
