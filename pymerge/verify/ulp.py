"""Units in the last place: how large they are, and how many of them lie between two numbers.

Between two finite numbers of one type are as many units as it takes steps to the next number of that type to
come from one to the other. -0 and +0 are neighbors, so 0 units apart means the same bits. A NaN is alike to every
NaN, an infinity to itself; everything else that is not finite is apart, no number of units away.
"""

from __future__ import annotations

import numpy as np

from pymerge.kernels.common.convert import Array, decode

__all__ = ["distance", "distance_between_types", "find_nonfinite", "last_place", "narrower"]

#: Bits of the significand, the leading one included; and the exponent of the least number above 0.
_PRECISION = {"float64": (53, -1074), "float32": (24, -149), "float16": (11, -24), "bfloat16": (8, -133)}


def narrower(left: str, right: str) -> str:
    """That of two types which has the shorter significand."""
    return min(left, right, key=lambda name: _PRECISION[name][0])


def last_place(magnitudes: Array, dtype: str) -> Array:
    """The unit in the last place that `dtype` has at each of [n] float64 magnitudes, as float64."""
    bits, least = _PRECISION[dtype]
    _, exponents = np.frexp(magnitudes)
    units: Array = np.ldexp(1.0, np.where(magnitudes == 0, least, np.maximum(exponents - bits, least)))
    return units


def find_nonfinite(values: Array) -> Array:
    """Which of [n] numbers of a floating type are infinite or NaN, by their bits: bool [n]."""
    words, exponent = _words(values)
    found: Array = (words & exponent) == exponent
    return found


def distance(left: Array, right: Array) -> tuple[Array, Array]:
    """Units between [n] numbers of one floating type, bit by bit.

    Returns:
        Unsigned integers of the type's size [n], 0 where numbers are alike or apart; and bool [n], those that are
        apart.
    """
    first, second = _rank(left), _rank(right)
    # The difference of two signed integers may not fit into one, but into an unsigned one it does.
    units = (np.maximum(first, second) - np.minimum(first, second)).view(f"u{left.dtype.itemsize}")
    apart = find_nonfinite(left) | find_nonfinite(right)
    if apart.any():
        alike = (units == 0) | (_is_nan(left) & _is_nan(right))
        units[apart] = 0
        apart &= ~alike
    return units, apart


def distance_between_types(left: Array, right: Array, dtype: str) -> tuple[Array, Array]:
    """Units of `dtype`, at the larger of two magnitudes, between [n] numbers of two types; fractions count as one.

    Returns:
        As `distance`.
    """
    first, second = decode(left, "float64"), decode(right, "float64")
    finite = np.isfinite(first) & np.isfinite(second)
    apart = ~finite & (first != second) & ~(np.isnan(first) & np.isnan(second))
    first, second = np.where(finite, first, 0), np.where(finite, second, 0)
    unit = last_place(np.maximum(np.abs(first), np.abs(second)), dtype)
    with np.errstate(over="ignore"):
        units = np.ceil(np.abs(first - second) / unit)
    # Two of the largest float64 of opposite signs: the difference overflows, the number of units does not.
    return np.minimum(units, 2.0**54).astype(np.uint64), apart


def _words(values: Array) -> tuple[Array, Array]:
    """Bit patterns, and that of infinity."""
    words = values.view(f"u{values.dtype.itemsize}")
    return words, np.array([np.inf], values.dtype).view(words.dtype)


def _is_nan(values: Array) -> Array:
    words, infinity = _words(values)
    found: Array = (words << 1) > (infinity << 1)
    return found


def _rank(values: Array) -> Array:
    """Signed integers that order like the numbers, 0 for +0 and -1 for -0."""
    bits = values.view(f"i{values.dtype.itemsize}")
    ranked: Array = bits ^ ((bits >> (8 * bits.itemsize - 1)) & np.iinfo(bits.dtype).max)
    return ranked
