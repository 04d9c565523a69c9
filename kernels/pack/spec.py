"""pack: elements as GGUF files store them; the last step of what makes such a file, never an input of a kernel.

    F32, F16, BF16    x, rounded to nearest even
    F32_PLUS_ONE      x + 1, of norms that such files hold with one added
    Q8_0              blocks of 32: d, then q[0 .. 32) as signed bytes

    a = max |x|;  D = a / 127;  d = D as float16;  q[i] = round(x[i] * (1 / D)), halves away from zero

Q8_0's quotients and products are float32's; d is rounded once, to nearest even. Where 1 / D is not finite, for a
below 3.8e-37, all q are 0, and d is too. A block that holds an infinity or NaN has NaN for d and zeros for q.

In: float32 [n], n a multiple of the block. Out: bytes, and how many of what is stored is not finite: elements, of Q8_0
all of a block whose d is not. Passes: the input once, the output once.
"""

from __future__ import annotations

import numpy as np

from ..common.convert import NUMPY_DTYPES, Array, encode

__all__ = ["FORMATS", "nonfinite", "run"]

PASSES = 1
#: Format -> (elements, bytes) of a block.
FORMATS: dict[str, tuple[int, int]] = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "F32_PLUS_ONE": (1, 4),
    "Q8_0": (32, 34),
}
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F32_PLUS_ONE": "float32"}


def run(values: Array, name: str) -> Array:
    """The contract, bit for bit.

    Args:
        values: float32 [n].
        name: of the format.

    Returns:
        uint8 [n / elements * bytes].
    """
    elements, size = FORMATS[name]
    if values.ndim != 1 or values.size % elements:
        raise ValueError(f"blocks of {name} have {elements} elements, these are {list(values.shape)}")
    with np.errstate(all="ignore"):
        if name == "F32_PLUS_ONE":
            values = values + np.float32(1)
        if name != "Q8_0":
            stored: Array = encode(values, _DTYPES[name]).view(np.uint8)
            return stored
        blocks = values.reshape(-1, elements)
        finite = np.isfinite(blocks).all(axis=1)
        step = np.abs(blocks).max(axis=1, initial=0) / np.float32(127)
        inverse = np.float32(1) / step
        usable = finite & np.isfinite(inverse)
        scaled = blocks * np.where(usable, inverse, np.float32(0))[:, None]
        magnitude = np.abs(np.where(usable[:, None], scaled, np.float32(0)))
        whole = np.floor(magnitude)
        rounded = np.copysign(whole + (magnitude - whole >= 0.5), scaled)
    out = np.empty((len(blocks), size), np.uint8)
    half = np.where(finite, step, np.float32(np.nan))
    out[:, :2] = encode(half, "float16").view(np.uint8).reshape(-1, 2)
    out[:, 2:] = np.where(usable[:, None], rounded, 0).astype(np.int8).view(np.uint8)
    return out.reshape(-1)


def nonfinite(stored: Array, name: str) -> Array:
    """Which elements of what `run` made are not finite: bool [n]."""
    elements, size = FORMATS[name]
    if name != "Q8_0":
        kept = stored.view(NUMPY_DTYPES[_DTYPES[name]])
    else:
        kept = np.repeat(stored.reshape(-1, size)[:, :2].copy().view(np.float16).reshape(-1), elements)
    bad: Array = ~np.isfinite(kept)
    return bad
