"""Chances by rank, for masks that are likelier to keep what is larger: thresholds for 16-bit draws.

Source: MAGPRUNE in Deep, Bhardwaj and Poria 2024 (DELLA), section 3: drop probabilities are linear in
the rank of an element's magnitude among its row's. Nothing is sorted here: magnitudes fall into classes
by their leading bits, and all elements of a class have the mean of the ranks that the class takes up. So
the number kept is the same on average, and equal magnitudes have equal chances.

    key        the magnitude's bit pattern, cut after four bits of mantissa
    class      0 .. 255: the row's largest finite key is class 254, every key less is one class less, down
               to 0, which also holds all that is smaller; infinities and NaN are class 255
    rank       among R elements, of a class of c elements above b: mean rank b + (c - 1) / 2, which is
               d = 2 b + c - R half steps from the middle
    threshold  floor((density 2^16 + 1/2) + (epsilon 2^16 / max(1, R - 1)) d), at least 1 and at most
               65535; in float64, in this order: the chance density + epsilon d / (R - 1), rounded to a
               multiple of 2^-16

An element is kept where its draw is below its threshold. In a row of one element d is 0.
"""

from __future__ import annotations

import numpy as np

from .convert import Array, magnitude_keys

__all__ = ["CLASSES", "SEGMENT", "classes", "thresholds"]

#: Elements that are ranked together at most: longer rows are cut, from their start, into such segments.
SEGMENT = 65536
CLASSES = 256
_CLASS_BITS = 4


def classes(values: Array) -> Array:
    """The class of every magnitude of one row ([R], float32 or float64), as int64."""
    patterns = magnitude_keys(values)
    keys = (patterns >> patterns.dtype.type(np.finfo(values.dtype).nmant - _CLASS_BITS)).astype(np.int64)
    finite = keys[np.isfinite(values)]
    first = int(finite.max(initial=0)) - (CLASSES - 2)
    made: Array = np.clip(keys - max(0, first), 0, CLASSES - 2)
    made[~np.isfinite(values)] = CLASSES - 1
    return made


def _row_thresholds(values: Array, density: float, epsilon: float) -> Array:
    made = classes(values)
    counts = np.bincount(made, minlength=CLASSES)
    below = np.cumsum(counts) - counts
    steps = 2 * below + counts - values.size
    slope = epsilon * 65536.0 / max(1, values.size - 1)
    limits = np.floor((density * 65536.0 + 0.5) + slope * steps)
    result: Array = np.clip(limits, 1, 65535).astype(np.int64)[made]
    return result


def thresholds(delta: Array, density: float, epsilon: float, row: int) -> Array:
    """Per element of a task vector ([N], float32 or float64) what its draw must be below; int64.

    Rows are `row` elements each; a last one that the tensor does not fill is ranked as it is.
    """
    made = np.empty(delta.size, np.int64)
    for start in range(0, delta.size, row):
        end = min(start + row, delta.size)
        for at in range(start, end, SEGMENT):
            part = slice(at, min(at + SEGMENT, end))
            made[part] = _row_thresholds(delta[part], density, epsilon)
    return made
