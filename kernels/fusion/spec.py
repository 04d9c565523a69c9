"""fusion: a base with those elements of a task vector whose score reaches a threshold.

    D = X - B;   s = |D k|, k the factor of the element's line;   Y = round(B + (s >= threshold ? D : 0))

In: one tensor and a base [N] of any mergeable dtype, a factor for each of the vectors that they are cut
into (`lines`: count, length, strided) and the threshold in float64, rounded once to the compute type.
Out: [N] of any mergeable dtype. Passes: both inputs once, the output once. Everything in the compute
type, no contraction; one rounding at the store. Scores compare as select's keys do: NaN is the largest,
and reaches every threshold, so that what is not finite is not lost.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..common.convert import Array, decode, decode_delta, encode, magnitude_keys
from ..common.lines import spread_lines

PASSES = 1


def run(
    tensors: Sequence[Array],
    base: Array,
    factors: Sequence[float],
    lines: tuple[int, int, bool],
    threshold: float,
    compute: str,
    out_dtype: str,
) -> Array:
    """The contract, bit for bit; `tensors` holds one."""
    origin = decode(base, compute)
    with np.errstate(all="ignore"):
        delta = decode_delta(tensors[0], base, compute)
        reached = _reached(delta, factors, lines, threshold, compute)
        return encode(origin + np.where(reached, delta, delta.dtype.type(0)), out_dtype)


def decide(
    tensors: Sequence[Array],
    base: Array,
    factors: Sequence[float],
    lines: tuple[int, int, bool],
    threshold: float,
    compute: str,
) -> Array:
    """What `run` decides of each element, [1, N]: whether its score reaches the threshold."""
    with np.errstate(all="ignore"):
        reached = _reached(decode_delta(tensors[0], base, compute), factors, lines, threshold, compute)
    return reached[None].astype(np.int8)


def _reached(
    delta: Array, factors: Sequence[float], lines: tuple[int, int, bool], threshold: float, compute: str
) -> Array:
    scores = magnitude_keys(delta * spread_lines(factors, lines, compute))
    reached: Array = scores >= magnitude_keys(np.array([threshold]).astype(delta.dtype))
    return reached
