"""row_divergence: how far each row of a tensor is from the base's, both taken as distributions.

    p = softmax(X row) + 1e-8,   q = softmax(B row) + 1e-8,   k = max(0, sum_e p[e] log(p[e] / q[e]))

In: one tensor and a base [count * length] of any mergeable dtype. Out: [count] float64. Passes over the
inputs: 1, two or three where a row is longer than what a core's cache holds. No contraction; no
library's exponentials, so every backend has the same bits. A row's sums are canonical from the row's
start: block sums (common/canonical.py) in its lanes' type, added in order in float64.

Two ways, by what a row holds. Where p and q are close, what the sum's terms are cancels in it to the
first and leaves the second order, and float32 cannot say it. But p and q add up to the same, so
k = sum_e q[e] f(r[e]) with r = p / q - 1 and f(r) = (1 + r) log(1 + r) - r, of which no term is negative:

* Computing in float32, |X - B| <= 1/32 and |B| <= 4 in the whole row: `_near`, in float32, by the terms
  of f that matter. softmax(X) / softmax(B) - 1 comes from exp(X - B) - 1, so nothing cancels.
* Else `_far`, the formula as it stands, in float64 by the exp and log of this file.

A row in which anything is NaN or +infinity, or everything -infinity, has k = NaN. Below 0 the sum of
`_far` is rounding alone.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

import numpy as np

from ..common.canonical import BLOCK, LANES
from ..common.convert import Array, decode

PASSES = 1

FLOOR = 1e-8
#: Units in the last place by which exp and log may miss: log rounds four times, by at most one each.
ULPS = 4

#: Within which a row is near, and what is halved until it fits EXP.
MOVE, SIZE, HALVED = 1 / 32, 4.0, 0.5
_hex = float.fromhex
#: exp on [-1/2, 1/2], highest power first: interpolated at the zeros of a Chebyshev polynomial, within 5e-8.
EXP = tuple(
    np.float32(_hex(c))
    for c in (
        [
            "0x1.6ef178p-10",
            "0x1.13ec6ap-7",
            "0x1.55527ap-5",
            "0x1.554f9cp-3",
            "0x1.000002p-1",
            "0x1.000006p+0",
            "0x1.000000p+0",
        ]
    )
)
#: (exp(d) - 1) / d and f(r) / r^2, by their series: what is left out is below 1e-8 and 6e-8 of them.
GROWTH = tuple(np.float32(c) for c in (1 / 24, 1 / 6, 1 / 2, 1))
TERM = tuple(np.float32(c) for c in (1 / 30, -1 / 20, 1 / 12, -1 / 6, 1 / 2))

LOG2E = _hex("0x1.71547652b82fep+0")
#: log 2 in two parts, the first with 32 bits, so that small multiples of it are exact.
LN2_HIGH, LN2_LOW = _hex("0x1.62e42feep-1"), _hex("0x1.a39ef35793c76p-33")
#: Adding it leaves a small number, rounded to an integer, in the last bits.
MAGIC = _hex("0x1.8p52")
WIDE_EXP = tuple(1.0 / math.factorial(power) for power in range(13, -1, -1))
LOG = tuple(1.0 / (2 * power + 1) for power in range(10, -1, -1))
LEAST = -708.0
_BIAS, _SHIFT = np.uint64(1023), np.uint64(52)
#: From the bits of sqrt(1/2) to those of 1: what is added so that mantissas lie around 1.
_CENTER = np.uint64(0x3FF0000000000000 - 0x3FE6A09E667F3BCD)


def _horner(coefficients: Sequence[float], x: Array) -> Array:
    y = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        y = y * x + coefficient
    return y


def exp(x: Array) -> Array:
    """e^x for x <= 0, float64; what is below -708 counts as -708."""
    x = np.where(x < LEAST, LEAST, x)
    shifted = x * LOG2E + MAGIC
    n = shifted - MAGIC
    scale = ((shifted.view(np.uint64) + _BIAS) << _SHIFT).view(np.float64)
    result: Array = _horner(WIDE_EXP, (x - n * LN2_HIGH) - n * LN2_LOW) * scale
    return result


def log(y: Array) -> Array:
    """Natural logarithm of normal, positive float64."""
    bits = y.view(np.uint64)
    exponent = (bits + _CENTER) >> _SHIFT
    m = (bits - ((exponent - _BIAS) << _SHIFT)).view(np.float64)
    n = exponent.astype(np.float64) - 1023.0
    f = (m - 1.0) / (m + 1.0)
    result: Array = n * LN2_HIGH + (n * LN2_LOW + (f + f) * _horner(LOG, f * f))
    return result


def _sum_rows(terms: Array) -> Array:
    """[R, length] to [R] float64: canonical block sums from each row's start, in order."""
    rows, length = terms.shape
    padded = np.zeros((rows, -(-length // LANES) * LANES), terms.dtype)
    padded[:, :length] = terms
    total = np.zeros(rows)
    for begin in range(0, padded.shape[1], BLOCK):
        block = padded[:, begin : begin + BLOCK]
        lanes = np.zeros((rows, LANES), terms.dtype)
        for step in range(0, block.shape[1], LANES):
            lanes += block[:, step : step + LANES]
        half = LANES // 2
        while half:
            lanes[:, :half] += lanes[:, half : 2 * half]
            half //= 2
        total += lanes[:, 0]
    return total


def _near(x: Array, b: Array, halvings: int) -> Array:
    """[R, length] float32 each to [R]; every row needs `halvings` for exp(B)."""
    d = x - b
    e = _horner(EXP, b * np.float32(0.5**halvings))
    for _ in range(halvings):
        e = e * e
    growth = _horner(GROWTH, d) * d
    mass, shift = _sum_rows(e), _sum_rows(e * growth)
    mean = shift / mass
    scale = (1.0 / mass).astype(np.float32)[:, None]
    back = (1.0 / (1.0 + mean)).astype(np.float32)[:, None]
    share = e * scale
    q = share + np.float32(FLOOR)
    r = (share / q) * ((growth - mean.astype(np.float32)[:, None]) * back)
    return _sum_rows(((r * r) * q) * _horner(TERM, r))


def _far(x: Array, b: Array) -> Array:
    """[R, length] float64 each to [R]."""
    shares = []
    for side in (x, b):
        powers = exp(side - np.fmax.reduce(side, axis=1, initial=-np.inf)[:, None])
        shares.append(powers * (1.0 / _sum_rows(powers))[:, None] + FLOOR)
    p, q = shares
    lost = np.isnan(p[:, 0]) | np.isnan(q[:, 0])
    sums = _sum_rows(p * log(p / q))
    result: Array = np.where(lost, np.nan, np.where(sums > 0, sums, 0.0))
    return result


def run(tensors: Sequence[Array], base: Array, lines: tuple[int, int, bool], compute: str) -> array[float]:
    """The contract, bit for bit; `tensors` holds one, `lines` (count, length, False) are rows."""
    count, length, _ = lines
    x, b = (decode(side, compute).reshape(count, length) for side in (tensors[0], base))
    result = np.empty(count)
    # Negative: far.
    halvings = np.full(count, -1)
    with np.errstate(all="ignore"):
        if compute == "float32":
            size = np.abs(b).max(axis=1)
            near = (np.abs(x - b).max(axis=1) <= MOVE) & (size <= SIZE)
            # The least number of halvings that brings |B| to HALVED or below.
            halvings[near] = sum((size[near] > HALVED * 2**step).astype(int) for step in range(3))
        for number in set(halvings.tolist()):
            rows = halvings == number
            sides = x[rows], b[rows]
            result[rows] = _far(*(side.astype(np.float64) for side in sides)) if number < 0 else _near(*sides, number)
    return array("d", result)


def bound(divergence: Array, moved: Array) -> Array:
    """Largest error of [R] divergences; `moved` is the largest |X - B| of each row.

    Relative: 2 ** 3 times the error of EXP and a dozen roundings of float32. What all of a row have in
    common changes nothing, but rounds: so does the mean of exp(X - B) - 1, to float32. Absolute: float64's
    roundings of numbers that add up to 1.
    """
    result: Array = 2e-6 * divergence + 2.0**-23 * moved * np.sqrt(2 * divergence) + 2.0**-46 * moved**2 + 2.0**-50
    return result


def ideal(tensor: Array, base: Array, length: int) -> Array:
    """The formula in long double."""
    shares = []
    for side in (tensor, base):
        values = decode(side, "float64").astype(np.longdouble).reshape(-1, length)
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        shares.append(powers / powers.sum(axis=1, keepdims=True) + np.longdouble(FLOOR))
    result: Array = (shares[0] * np.log(shares[0] / shares[1])).sum(axis=1)
    return result
