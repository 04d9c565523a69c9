"""noise: numbers drawn for each element, added to a tensor; derived while it is read, before any kernel sees it.

    Y[i] = X[i] + s f(u[i]),   u[i] = (w[i] + 1/2) / 2^32
    f(u) = Phi^-1(u)   normal
    f(u) = 2 u - 1     uniform

In: X of any mergeable dtype (none: zeros), flat. Out: float32, flat. w[i] are 32 bits of Philox4x32-7 under a 64-bit
key: of element e of canonical block b, the 16-bit draws (common/random.py) of block 2 b + e // 512 at (e % 512) // 128
times 256 plus e % 128, and 128 behind it, the low half first. Phi^-1 is Wichura 1988, algorithm AS 241 (PPND16), in
float64 with the log of row_divergence/spec.py: no library's functions, so every backend has the same bits. u is at
least 2^-33, so its third interval, of tails below e^-25, is never met. f is rounded to float32; then one product with
s, a float32, and one sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..common.canonical import BLOCK
from ..common.convert import Array, decode
from ..common.random import draws
from ..row_divergence.spec import log

KINDS = ("normal", "uniform")

#: Where tails begin, and what the middle is a rational function of: |u - 1/2|, 0.425 squared.
MIDDLE, SQUARE = 0.425, 0.180625
#: Subtracted from sqrt(-log) of a tail.
SHIFT = 1.6
#: Numerators and denominators, highest power first.
NEAR = (
    (2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
     1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0),
    (5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
     5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0),
)  # fmt: skip
FAR = (
    (7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0,
     3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0),
    (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
     6.89767334985100004550e-1, 1.67638483018380384940e0, 2.05319162663775882187e0, 1.0),
)  # fmt: skip


def words(key: int, count: int) -> Array:
    """The 32 bits of elements 0..count-1, as [count] uint32."""
    blocks = -(-count // BLOCK)
    # [half block, word, half of it, counter]
    halves = draws(key, 2 * BLOCK * blocks).astype(np.uint32).reshape(-1, 4, 2, 128)
    whole: Array = halves[:, :, 0] | (halves[:, :, 1] << np.uint32(16))
    return whole.reshape(-1)[:count]


def normal(u: Array) -> Array:
    """The inverse of the normal distribution's cumulative function for 2^-33 <= u <= 1 - 2^-33, float64."""
    q = u - 0.5
    middle = q * _rational(NEAR, SQUARE - q * q)
    tail = _rational(FAR, np.sqrt(-log(np.where(q < 0, u, 1.0 - u))) - SHIFT)
    result: Array = np.where(np.abs(q) <= MIDDLE, middle, np.where(q < 0, -tail, tail))
    return result


def run(base: Array | None, count: int, key: int, scale: float, kind: str) -> Array:
    """The contract, bit for bit; `base` and the result are flat."""
    u = (words(key, count).astype(np.float64) + 0.5) * 2.0**-32
    drawn = (normal(u) if kind == "normal" else 2.0 * u - 1.0).astype(np.float32)
    out = np.zeros(count, np.float32) if base is None else decode(base, "float32")
    with np.errstate(all="ignore"):
        result: Array = out + np.float32(scale) * drawn
    return result


def _rational(coefficients: Sequence[Sequence[float]], x: Array) -> Array:
    above, below = (_horner(each, x) for each in coefficients)
    result: Array = above / below
    return result


def _horner(coefficients: Sequence[float], x: Array) -> Array:
    y = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        y = y * x + coefficient
    return y
