"""task_merge: masked, scaled task vectors on top of a base, with or without sign election.

    P_i = c_i (m_i ? D_i : 0),   D_i = X_i - B

    without election:  S = P_1 + ... + P_n
    with election:     T = P_1 + ... + P_n;  the + side wins where T >= 0, else the - side
                       a_i = P_i is not on the other side and not zero   (NaN always takes part)
                       Z = sum of w_i with a_i (1 if that is zero);  f = scale / Z, or scale
                       S = (sum of P_i with a_i) f

    Y = round(B + S)

In: base [N], n >= 1 tensors [N] of any mergeable dtype, per tensor a mask rule (mask's spec), c_i
and w_i. Numbers are float64, rounded once to the compute type. Out: [N] of any mergeable dtype.
Passes: every input once, the output once. Everything in the compute type, sums left to right, no
contraction, division and products rounded; one rounding at the store.
A dropped element counts as +0 whatever it was; what is not dropped is never silently lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..common.convert import NUMPY_DTYPES, Array, decode, encode
from ..mask import spec as mask

PASSES = 1


def _elect(parts: list[Array], weights: Sequence[float], normalize: bool, scale: float, real: Any) -> Array:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    side = np.where(total >= 0, real(1), real(-1))
    merged = np.zeros_like(total)
    divisor = np.zeros_like(total)
    for part, weight in zip(parts, weights, strict=True):
        agrees = ~(part * side <= 0)
        merged = merged + np.where(agrees, part, real(0))
        divisor = divisor + np.where(agrees, real(weight), real(0))
    factor = real(scale) / np.where(divisor == 0, real(1), divisor) if normalize else real(scale)
    result: Array = merged * factor
    return result


def run(
    tensors: Sequence[Array],
    base: Array,
    rules: Sequence[tuple[Any, ...]],
    coefficients: Sequence[float],
    elect: bool,
    weights: Sequence[float],
    normalize: bool,
    scale: float,
    compute: str,
    out_dtype: str,
) -> Array:
    """The contract, bit for bit (at compute float64: the formula to float64's precision)."""
    real = NUMPY_DTYPES[compute].type
    origin = decode(base, compute)
    parts = []
    with np.errstate(all="ignore"):
        for tensor, rule, coefficient in zip(tensors, rules, coefficients, strict=True):
            delta = decode(tensor, compute) - origin
            kept = np.where(mask.run(rule, delta), delta, real(0))
            parts.append(kept * real(coefficient))
        if elect:
            merged = _elect(parts, weights, normalize, scale, real)
        else:
            merged = parts[0]
            for part in parts[1:]:
                merged = merged + part
        return encode(origin + merged, out_dtype)
