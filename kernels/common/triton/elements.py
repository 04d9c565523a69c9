"""Exact decoding to the compute type, one rounding back: convert.py's contract, in Triton.

bfloat16 goes through its bits, both ways: Triton's interpreter truncates where a device rounds, and loses
denormals. Its other conversions are exact or rounded to nearest even, as a device's are.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["divide", "index_of", "keys_of", "load", "load_delta", "number", "store"]


@triton.jit
def index_of(numbers, at):
    """The integer `at` places into the launch's numbers (int64)."""
    return tl.load(numbers + at)


@triton.jit
def number(numbers, at, REAL: tl.constexpr):
    """The float64 number `at` places into the launch's numbers, rounded once to REAL."""
    return tl.load(numbers + at).to(tl.float64, bitcast=True).to(REAL)


@triton.jit
def load(tensor, offsets, inside, REAL: tl.constexpr):
    """The values at `offsets`, decoded exactly to REAL; 0 where not `inside`."""
    kind: tl.constexpr = tensor.dtype.element_ty
    if kind == tl.bfloat16:
        words = tl.load(tensor.to(tl.pointer_type(tl.uint16), bitcast=True) + offsets, mask=inside, other=0)
        return (words.to(tl.uint32) << 16).to(tl.float32, bitcast=True).to(REAL)
    else:
        return tl.load(tensor + offsets, mask=inside, other=0).to(REAL)


@triton.jit
def load_delta(tensor, origin, offsets, inside, HAS_BASE: tl.constexpr, REAL: tl.constexpr):
    """D = X - B in REAL, or X where there is no base; `origin` is B decoded."""
    value = load(tensor, offsets, inside, REAL)
    if HAS_BASE:
        value = value - origin
    return value


@triton.jit
def store(out, offsets, value, inside):
    """Round once, to nearest even, into the output's dtype, and store; NaN becomes the canonical quiet one."""
    kind: tl.constexpr = out.dtype.element_ty
    bits: tl.constexpr = kind.primitive_bitwidth
    lost = value != value
    if value.dtype == tl.float64 and bits == 16:
        value = _narrow_to_odd(value)
    if kind == tl.bfloat16:
        word = value.to(tl.float32).to(tl.uint32, bitcast=True)
        word = (word + 0x7FFF + ((word >> 16) & 1)) >> 16
        word = tl.where(lost, 0x7FC0, word).to(tl.uint16)
        tl.store(out.to(tl.pointer_type(tl.uint16), bitcast=True) + offsets, word, mask=inside)
    elif kind == tl.float16:
        word = value.to(tl.float16).to(tl.uint16, bitcast=True)
        word = tl.where(lost, 0x7E00, word).to(tl.uint16)
        tl.store(out.to(tl.pointer_type(tl.uint16), bitcast=True) + offsets, word, mask=inside)
    elif kind == tl.float32:
        word = tl.where(lost, 0x7FC00000, value.to(tl.float32).to(tl.int32, bitcast=True))
        tl.store(out.to(tl.pointer_type(tl.int32), bitcast=True) + offsets, word, mask=inside)
    else:
        word = tl.where(lost, 0x7FF8000000000000, value.to(tl.float64).to(tl.int64, bitcast=True))
        tl.store(out.to(tl.pointer_type(tl.int64), bitcast=True) + offsets, word, mask=inside)


@triton.jit
def _narrow_to_odd(value):
    """float64 to float32 such that rounding again, to 16 bits, rounds only once (convert.py)."""
    nearest = value.to(tl.float32)
    back = nearest.to(tl.float64)
    inexact = (back != value) & (value == value)
    away = inexact & ((back > value) == (value > 0))
    word = nearest.to(tl.int32, bitcast=True) - away.to(tl.int32)
    return (word | inexact.to(tl.int32)).to(tl.float32, bitcast=True)


@triton.jit
def keys_of(value):
    """Bit patterns of magnitudes (int32 or int64, never negative); every NaN becomes the canonical one."""
    if value.dtype == tl.float64:
        word = value.to(tl.int64, bitcast=True) & 0x7FFFFFFFFFFFFFFF
        return tl.where(value != value, 0x7FF8000000000000, word)
    else:
        word = value.to(tl.int32, bitcast=True) & 0x7FFFFFFF
        return tl.where(value != value, 0x7FC00000, word)


@triton.jit
def divide(left, right):
    """left / right, rounded; a plain float32 quotient is not."""
    if left.dtype == tl.float64:
        return left / right
    else:
        return tl.div_rn(left, right)
