"""near_swap: elements near the base's become the other model's, the rest move towards it by t.

    D = X - B;   q = t / max(|D|, 1e-6);   Y = round(q >= 1 ? X : B + q D)

In: a base [N] and one tensor [N] of any mergeable dtype; t >= 0 is float64, rounded once to the
compute type, as is 1e-6. Out: [N] of any mergeable dtype. Passes: both inputs once, the output
once. Everything in the compute type, the quotient and the product rounded, no contraction; one
rounding at the store. What is near is X to the bit (unless a NaN is stored).
Nothing that is not finite is lost: beside an infinity q is 0 and q D is NaN; NaN is never near.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..common.convert import Array, decode, encode

PASSES = 1

#: The least difference that t is divided by.
FLOOR = 1e-6


def run(tensors: Sequence[Array], base: Array, t: float, compute: str, out_dtype: str) -> Array:
    """The contract, bit for bit; `tensors` holds one."""
    (tensor,) = tensors
    value, origin = decode(tensor, compute), decode(base, compute)
    with np.errstate(all="ignore"):
        delta = value - origin
        share = _share(delta, t)
        return encode(np.where(share >= 1, value, origin + share * delta), out_dtype)


def decide(tensors: Sequence[Array], base: Array, t: float, compute: str) -> Array:
    """What `run` decides of each element, [1, N]: whether it is near."""
    with np.errstate(all="ignore"):
        near: Array = _share(decode(tensors[0], compute) - decode(base, compute), t) >= 1
    return near[None].astype(np.int8)


def _share(delta: Array, t: float) -> Array:
    real, distance = delta.dtype.type, np.abs(delta)
    share: Array = real(t) / np.where(distance < real(FLOOR), real(FLOOR), distance)
    return share


def ideal(tensor: Array, base: Array, t: float) -> Array:
    """The formula in float64."""
    value, origin = decode(tensor, "float64"), decode(base, "float64")
    share = np.minimum(t / np.maximum(np.abs(value - origin), FLOOR), 1.0)
    result: Array = share * value + (1 - share) * origin
    return result


def bound(tensor: Array, base: Array, t: float) -> Array:
    """Largest error before the store, per element: the sum's rounding, and four of what is added."""
    value, origin = decode(tensor, "float64"), decode(base, "float64")
    moved = np.minimum(np.abs(value - origin), t)
    result: Array = 2.0**-24 * (np.maximum(np.abs(value), np.abs(origin)) + 4 * moved)
    return result
