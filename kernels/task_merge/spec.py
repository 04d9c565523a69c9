"""task_merge: masked, scaled task vectors on top of a base, with or without sign election.

    P_i = c_i K_i,   K_i = m_i ? D_i : 0,   D_i = X_i - B

    without election:  S = P_1 + ... + P_n
    with election:     V_i = v_i K_i (P_i where no votes are given)
                       T = V_1 + ... + V_n, or the sum of their signs -1, 0, 1 under "count" (NaN has none)
                       the + side wins where T >= 0, else the - side
                       a_i = V_i is not on the other side and not zero   (NaN always takes part);
                             under "overlap", where nobody votes: K_i is not zero
                       Z = sum of w_i with a_i (1 if that is zero);  f = scale / Z, or scale;
                           u_i where only source i takes part and numbers u for that are given
                       S = (sum of P_i with a_i) f
                       S = (that P_i with a_i whose magnitude is the largest, of equal ones the first) scale
                           under "pick"; 0 where none takes part, NaN is the largest

    Y = round(B + S)

In: base [N], n >= 1 tensors [N] of any mergeable dtype, per tensor a mask rule (mask's spec), c_i,
w_i, and perhaps v_i and u_i; consensus "none", "sum", "count" or "overlap", with or without "pick". Numbers are
float64, rounded once to the compute type. Out: [N] of any mergeable dtype.
Passes: every input once, the output once. Everything in the compute type, sums left to right, no
contraction, division and products rounded; one rounding at the store.
A dropped element counts as +0 whatever it was; what is not dropped is never silently lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..common.convert import NUMPY_DTYPES, Array, decode, decode_delta, encode, magnitude_keys
from ..mask import spec as mask

PASSES = 1


def _agreeing(
    kept: list[Array], coefficients: Sequence[float], consensus: str, votes: Sequence[float], real: Any
) -> list[Array]:
    """Who takes part at which elements, a [N] bool array for each."""
    if consensus == "overlap":
        return [~(part == 0) for part in kept]
    ballots = [real(v) * part for v, part in zip(votes or coefficients, kept, strict=True)]
    counted = [np.nan_to_num(np.sign(ballot)) for ballot in ballots] if consensus == "count" else ballots
    total = counted[0]
    for ballot in counted[1:]:
        total = total + ballot
    side = np.where(total >= 0, real(1), real(-1))
    return [~(ballot * side <= 0) for ballot in ballots]


def _pick(parts: list[Array], agreeing: list[Array]) -> tuple[Array, Array]:
    """The largest part of those that take part, and whose it is; +0 and -1 where none does."""
    merged, owner = np.zeros_like(parts[0]), np.full(parts[0].size, -1, np.int32)
    for i, (part, agrees) in enumerate(zip(parts, agreeing, strict=True)):
        larger = agrees & (magnitude_keys(part) > magnitude_keys(merged))
        merged = np.where(larger, part.dtype.type(0) + part, merged)
        owner[larger] = i
    return merged, owner


def _elect(
    kept: list[Array],
    coefficients: Sequence[float],
    consensus: str,
    weights: Sequence[float],
    normalize: bool,
    scale: float,
    votes: Sequence[float],
    alone: Sequence[float],
    pick: bool,
    real: Any,
) -> Array:
    parts = [real(c) * part for c, part in zip(coefficients, kept, strict=True)]
    agreeing = _agreeing(kept, coefficients, consensus, votes, real)
    if pick:
        picked: Array = _pick(parts, agreeing)[0] * real(scale)
        return picked
    merged = np.zeros_like(kept[0])
    divisor = np.zeros_like(kept[0])
    taking = np.zeros(merged.size, np.int64)
    single = np.zeros_like(kept[0])
    for i, agrees in enumerate(agreeing):
        merged = merged + np.where(agrees, parts[i], real(0))
        divisor = divisor + np.where(agrees, real(weights[i] if normalize else 0), real(0))
        taking = taking + agrees
        single = single + np.where(agrees, real(alone[i] if alone else 0), real(0))
    factor = real(scale) / np.where(divisor == 0, real(1), divisor) if normalize else real(scale)
    if alone:
        factor = np.where(taking == 1, single, factor)
    result: Array = merged * factor
    return result


def run(
    tensors: Sequence[Array],
    base: Array,
    rules: Sequence[tuple[Any, ...]],
    coefficients: Sequence[float],
    consensus: str,
    weights: Sequence[float],
    normalize: bool,
    scale: float,
    votes: Sequence[float],
    alone: Sequence[float],
    pick: bool,
    compute: str,
    out_dtype: str,
) -> Array:
    """The contract, bit for bit (at compute float64: the formula to float64's precision)."""
    real = NUMPY_DTYPES[compute].type
    origin = decode(base, compute)
    deltas = [decode_delta(tensor, base, compute) for tensor in tensors]
    masks = mask.run_each(rules, tensors, deltas, compute)
    with np.errstate(all="ignore"):
        kept = [np.where(keeps, delta, real(0)) for keeps, delta in zip(masks, deltas, strict=True)]
        if consensus != "none":
            merged = _elect(kept, coefficients, consensus, weights, normalize, scale, votes, alone, pick, real)
        else:
            merged = kept[0] * real(coefficients[0])
            for part, coefficient in zip(kept[1:], coefficients[1:], strict=True):
                merged = merged + part * real(coefficient)
        return encode(origin + merged, out_dtype)


def decide(
    tensors: Sequence[Array],
    base: Array,
    rules: Sequence[tuple[Any, ...]],
    coefficients: Sequence[float],
    consensus: str,
    weights: Sequence[float],
    normalize: bool,
    scale: float,
    votes: Sequence[float],
    alone: Sequence[float],
    pick: bool,
    compute: str,
) -> Array:
    """What `run` decides of each element, [decisions, N] integers: masks, who takes part, who is picked."""
    real = NUMPY_DTYPES[compute].type
    deltas = [decode_delta(tensor, base, compute) for tensor in tensors]
    masks = mask.run_each(rules, tensors, deltas, compute)
    if consensus == "none":
        return np.stack(masks)
    with np.errstate(all="ignore"):
        kept = [np.where(keeps, delta, real(0)) for keeps, delta in zip(masks, deltas, strict=True)]
        agreeing = _agreeing(kept, coefficients, consensus, votes, real)
        if not pick:
            return np.stack([*masks, *(agrees.astype(np.int8) for agrees in agreeing)])
        owner = _pick([real(c) * part for c, part in zip(coefficients, kept, strict=True)], agreeing)[1]
        return np.stack([*masks, owner])
