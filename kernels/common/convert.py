"""Exact decoding to the compute type, one rounding back: what storage means, in numpy."""

from __future__ import annotations

from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt

__all__ = ["NUMPY_DTYPES", "Array", "decode", "decode_delta", "encode", "magnitude_keys", "narrow_to_odd"]

Array: TypeAlias = npt.NDArray[Any]

#: numpy's type for each mergeable dtype.
NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
_CANONICAL_NAN = {"float64": 0x7FF8 << 48, "float32": 0x7FC00000, "float16": 0x7E00, "bfloat16": 0x7FC0}
_WORDS = {2: np.uint16, 4: np.uint32, 8: np.uint64}


def decode(tensor: Array, compute: str) -> Array:
    """Return the tensor's values, [n] of `compute` ("float32" or "float64"); exact."""
    with np.errstate(invalid="ignore"):  # signaling NaN
        return tensor.astype(NUMPY_DTYPES[compute])


def decode_delta(tensor: Array, base: Array | None, compute: str) -> Array:
    """Return D = X - B in the compute type, or X itself where there is no base."""
    if base is None:
        return decode(tensor, compute)
    with np.errstate(over="ignore", invalid="ignore"):
        delta: Array = decode(tensor, compute) - decode(base, compute)
    return delta


def narrow_to_odd(values: Array) -> Array:
    """Float64 to float32 such that rounding the result again, to 16 bits, rounds only once.

    Truncates, and sets the last bit if anything was lost ("round to odd", Boldo and Melquiond 2008).
    """
    with np.errstate(over="ignore", invalid="ignore"):
        nearest = values.astype(np.float32)
        back = nearest.astype(np.float64)
    bits = nearest.view(np.uint32).copy()
    inexact = back != values
    away = inexact & ((back > values) == (values > 0))
    bits -= away.astype(np.uint32)
    bits |= inexact.astype(np.uint32)
    odd: Array = np.where(np.isnan(values), nearest, bits.view(np.float32))
    return odd


def encode(values: Array, dtype: str) -> Array:
    """Round [n] values once, to nearest even, into `dtype`; NaN becomes the canonical quiet one."""
    target = NUMPY_DTYPES[dtype]
    if values.dtype == np.float64 and target.itemsize == 2:
        values = narrow_to_odd(values)
    with np.errstate(over="ignore", invalid="ignore"):
        out = values.astype(target)
    words = out.view(_WORDS[target.itemsize])
    words[np.isnan(values)] = _CANONICAL_NAN[dtype]
    return out


def magnitude_keys(delta: Array) -> Array:
    """Bit patterns of |delta| as unsigned integers, which order like the magnitudes.

    Every NaN becomes the canonical one, the largest key of all.
    """
    word = np.uint64 if delta.dtype == np.float64 else np.uint32
    name = "float64" if delta.dtype == np.float64 else "float32"
    keys = delta.view(word) & word(np.iinfo(word).max >> 1)
    keys[np.isnan(delta)] = _CANONICAL_NAN[name]
    result: Array = keys
    return result
