"""weighted_sum: a linear combination.

    Y[e] = round(c_1 X_1[e] + c_2 X_2[e] + ... + c_n X_n[e])

In: n >= 1 tensors [N] of any mergeable dtype, n coefficients (float64, rounded once to the compute
type). Out: [N] of any mergeable dtype. Passes: every input once, the output once. Products and
sums in the compute type, left to right, no contraction; one rounding to nearest even at the store.
Infinities and NaN propagate; a stored NaN is the canonical one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..common.convert import NUMPY_DTYPES, Array, decode, encode

PASSES = 1


def run(tensors: Sequence[Array], coefficients: Sequence[float], compute: str, out_dtype: str) -> Array:
    """The contract, bit for bit."""
    real = NUMPY_DTYPES[compute].type
    with np.errstate(over="ignore", invalid="ignore"):
        total = real(coefficients[0]) * decode(tensors[0], compute)
        for tensor, coefficient in zip(tensors[1:], coefficients[1:], strict=True):
            total = total + real(coefficient) * decode(tensor, compute)
    return encode(total, out_dtype)


def ideal(tensors: Sequence[Array], coefficients: Sequence[float]) -> Array:
    """The formula in float64."""
    result: Array = np.einsum("i,ie->e", np.asarray(coefficients), [decode(t, "float64") for t in tensors])
    return result


def bound(tensors: Sequence[Array], coefficients: Sequence[float]) -> Array:
    """Largest error before the store, per element: 2 n roundings of float32, relative to sum |c X|."""
    magnitudes = ideal([np.abs(decode(t, "float64")) for t in tensors], np.abs(coefficients).tolist())
    result: Array = magnitudes * (len(tensors) + 1) * 2.0**-24
    return result
