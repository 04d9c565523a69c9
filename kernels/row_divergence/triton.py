"""row_divergence in Triton: a program works on some rows; see spec.py.

Two launches: `_near` for all rows that are, and `_far` for the others. A row is read three times by each, from the
cache but the first time: what its bounds are, what it adds up to, the divergence.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from ..common.canonical import BLOCK, LANES
from ..common.triton.elements import divide, keys_of, load
from ..common.triton.launch import INTERPRETED, cdiv, launch, real_of, shape_of, to_bytes
from ..common.triton.sums import add_lanes, add_steps
from . import spec

__all__ = ["run"]

_LANES = tl.constexpr(LANES)
_BLOCK = tl.constexpr(BLOCK)
#: Steps of 32 elements of a row that are worked on at a time: 1 << this.
_LEVELS = 5 if INTERPRETED else 0
_ROWS = 64


def _bits(value: float) -> tl.constexpr:
    return tl.constexpr(struct.unpack("<i", struct.pack("<f", value))[0])


_MOVE, _SIZE = _bits(spec.MOVE), _bits(spec.SIZE)
_HALVED, _TWICE, _FOUR_TIMES = _bits(spec.HALVED), _bits(2 * spec.HALVED), _bits(4 * spec.HALVED)
_FLOOR = tl.constexpr(spec.FLOOR)
_EXP = tl.constexpr(tuple(map(float, spec.EXP)))
_GROWTH = tl.constexpr(tuple(map(float, spec.GROWTH)))
_TERM = tl.constexpr(tuple(map(float, spec.TERM)))
_WIDE_EXP = tl.constexpr(spec.WIDE_EXP)
_LOG = tl.constexpr(spec.LOG)
_LOG2E, _LN2_HIGH, _LN2_LOW = tl.constexpr(spec.LOG2E), tl.constexpr(spec.LN2_HIGH), tl.constexpr(spec.LN2_LOW)
_MAGIC, _LEAST = tl.constexpr(spec.MAGIC), tl.constexpr(spec.LEAST)
_CENTER = tl.constexpr(0x3FF0000000000000 - 0x3FE6A09E667F3BCD)
_NONE = tl.constexpr(-math.inf)


@triton.jit
def _horner(x, COEFFICIENTS: tl.constexpr, COUNT: tl.constexpr):
    y = x * COEFFICIENTS[0] + COEFFICIENTS[1]
    for i in tl.static_range(2, COUNT):
        y = y * x + COEFFICIENTS[i]
    return y


@triton.jit
def _exp(x):
    """e^x for x <= 0, float64."""
    x = tl.where(x < _LEAST, _LEAST, x)
    shifted = x * _LOG2E + _MAGIC
    n = shifted - _MAGIC
    scale = ((shifted.to(tl.int64, bitcast=True) + 1023) << 52).to(tl.float64, bitcast=True)
    return _horner((x - n * _LN2_HIGH) - n * _LN2_LOW, _WIDE_EXP, 14) * scale


@triton.jit
def _log(y):
    """Natural logarithm of normal, positive float64."""
    word = y.to(tl.int64, bitcast=True)
    exponent = (word + _CENTER) >> 52
    m = (word - ((exponent - 1023) << 52)).to(tl.float64, bitcast=True)
    n = exponent.to(tl.float64) - 1023.0
    f = (m - 1.0) / (m + 1.0)
    return n * _LN2_HIGH + (n * _LN2_LOW + (f + f) * _horner(f * f, _LOG, 11))


@triton.jit
def _rows_of(rows, length, ROWS: tl.constexpr, LEVELS: tl.constexpr):
    """A program's rows, where they begin, their lengths (0 past the last), and the elements of a step."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    ahead = (tl.arange(0, 1 << LEVELS) * _LANES)[None, :, None] + tl.arange(0, _LANES)[None, None, :]
    size = tl.where(row < rows, length, 0)
    return row, (row * length)[:, None, None], size[:, None, None], ahead


@triton.jit
def _grow(value, origin, halvings):
    """e^base, by halving it so often first, and e^(value - base) - 1."""
    half = tl.where(halvings == 0, 1.0, tl.where(halvings == 1, 0.5, tl.where(halvings == 2, 0.25, 0.125)))
    power = _horner(origin * half, _EXP, 7)
    for step in tl.static_range(3):
        power = tl.where(halvings > step, power * power, power)
    delta = value - origin
    return power, _horner(delta, _GROWTH, 4) * delta


@triton.jit
def _near(out, far, tensor, base, rows, length, ROWS: tl.constexpr, LEVELS: tl.constexpr):
    width: tl.constexpr = _LANES << LEVELS
    row, begin, size, ahead = _rows_of(rows, length, ROWS, LEVELS)
    moves = tl.zeros((ROWS, 1 << LEVELS, _LANES), tl.int32)
    sizes = tl.zeros((ROWS, 1 << LEVELS, _LANES), tl.int32)
    for done in range(0, length, width):
        inside = done + ahead < size
        value = load(tensor, begin + done + ahead, inside, tl.float32)
        origin = load(base, begin + done + ahead, inside, tl.float32)
        moves = tl.maximum(moves, keys_of(value - origin))
        sizes = tl.maximum(sizes, keys_of(origin))
    move = tl.max(tl.max(moves, 2), 1)
    largest = tl.max(tl.max(sizes, 2), 1)
    is_near = (move <= _MOVE) & (largest <= _SIZE)
    halvings = (largest > _HALVED).to(tl.int32) + (largest > _TWICE).to(tl.int32) + (largest > _FOUR_TIMES).to(tl.int32)
    halvings = halvings[:, None, None]
    mass = tl.zeros((ROWS,), tl.float64)
    shift = tl.zeros((ROWS,), tl.float64)
    for block in range(0, length, _BLOCK):
        masses = tl.zeros((ROWS, _LANES), tl.float32)
        shifts = tl.zeros((ROWS, _LANES), tl.float32)
        for done in range(block, tl.minimum(block + _BLOCK, length), width):
            inside = done + ahead < size
            value = load(tensor, begin + done + ahead, inside, tl.float32)
            origin = load(base, begin + done + ahead, inside, tl.float32)
            power, growth = _grow(value, origin, halvings)
            power = tl.where(inside, power, 0.0)
            masses = add_steps(masses, power, ROWS, LEVELS)
            shifts = add_steps(shifts, power * growth, ROWS, LEVELS)
        mass += add_lanes(masses, ROWS)
        shift += add_lanes(shifts, ROWS)
    mean = shift / mass
    middle = mean.to(tl.float32)[:, None, None]
    scale = (1.0 / mass).to(tl.float32)[:, None, None]
    back = (1.0 / (1.0 + mean)).to(tl.float32)[:, None, None]
    total = tl.zeros((ROWS,), tl.float64)
    for block in range(0, length, _BLOCK):
        totals = tl.zeros((ROWS, _LANES), tl.float32)
        for done in range(block, tl.minimum(block + _BLOCK, length), width):
            inside = done + ahead < size
            value = load(tensor, begin + done + ahead, inside, tl.float32)
            origin = load(base, begin + done + ahead, inside, tl.float32)
            power, growth = _grow(value, origin, halvings)
            share = power * scale
            q = share + _FLOOR
            r = divide(share, q) * ((growth - middle) * back)
            term = ((r * r) * q) * _horner(r, _TERM, 5)
            totals = add_steps(totals, tl.where(inside, term, 0.0), ROWS, LEVELS)
        total += add_lanes(totals, ROWS)
    tl.store(out + row, total, mask=row < rows)
    tl.store(far + row, (~is_near).to(tl.int8), mask=row < rows)


@triton.jit
def _greatest(tensor, begin, size, ahead, length, ROWS: tl.constexpr, LEVELS: tl.constexpr):
    """The greatest of each row that is a number."""
    width: tl.constexpr = _LANES << LEVELS
    most = tl.full((ROWS, 1 << LEVELS, _LANES), _NONE, tl.float64)
    for done in range(0, length, width):
        inside = done + ahead < size
        value = load(tensor, begin + done + ahead, inside, tl.float64)
        most = tl.maximum(most, tl.where(inside & (value == value), value, _NONE))
    return tl.max(tl.max(most, 2), 1)[:, None, None]


@triton.jit
def _mass(tensor, greatest, begin, size, ahead, length, ROWS: tl.constexpr, LEVELS: tl.constexpr):
    """What e^(x - greatest) adds up to in each row."""
    width: tl.constexpr = _LANES << LEVELS
    total = tl.zeros((ROWS,), tl.float64)
    for block in range(0, length, _BLOCK):
        totals = tl.zeros((ROWS, _LANES), tl.float64)
        for done in range(block, tl.minimum(block + _BLOCK, length), width):
            inside = done + ahead < size
            power = _exp(load(tensor, begin + done + ahead, inside, tl.float64) - greatest)
            totals = add_steps(totals, tl.where(inside, power, 0.0), ROWS, LEVELS)
        total += add_lanes(totals, ROWS)
    return total


@triton.jit
def _far(out, far, tensor, base, rows, length, ROWS: tl.constexpr, LEVELS: tl.constexpr):
    width: tl.constexpr = _LANES << LEVELS
    row, begin, size, ahead = _rows_of(rows, length, ROWS, LEVELS)
    is_far = tl.load(far + row, mask=row < rows, other=0) != 0
    if tl.max(is_far.to(tl.int32), 0) > 0:
        top = _greatest(tensor, begin, size, ahead, length, ROWS, LEVELS)
        base_top = _greatest(base, begin, size, ahead, length, ROWS, LEVELS)
        mass = _mass(tensor, top, begin, size, ahead, length, ROWS, LEVELS)
        base_mass = _mass(base, base_top, begin, size, ahead, length, ROWS, LEVELS)
        scale = (1.0 / mass)[:, None, None]
        base_scale = (1.0 / base_mass)[:, None, None]
        total = tl.zeros((ROWS,), tl.float64)
        for block in range(0, length, _BLOCK):
            totals = tl.zeros((ROWS, _LANES), tl.float64)
            for done in range(block, tl.minimum(block + _BLOCK, length), width):
                inside = done + ahead < size
                p = _exp(load(tensor, begin + done + ahead, inside, tl.float64) - top) * scale + _FLOOR
                q = _exp(load(base, begin + done + ahead, inside, tl.float64) - base_top) * base_scale + _FLOOR
                totals = add_steps(totals, tl.where(inside, p * _log(p / q), 0.0), ROWS, LEVELS)
            total += add_lanes(totals, ROWS)
        total = tl.where(total > 0, total, 0.0)
        # Where it is NaN, a row had NaN, an infinity above all, or nothing else.
        total = tl.where((mass == mass) & (base_mass == base_mass), total, float("nan"))
        tl.store(out + row, total, mask=(row < rows) & is_far)


def run(tensors: Sequence[torch.Tensor], base: torch.Tensor, lines: tuple[int, int, bool], compute: str) -> bytes:
    """The contract: the bytes of one float64 for each row."""
    rows, length, _ = lines
    device = base.device
    out = torch.empty(rows, dtype=torch.float64, device=device)
    far = torch.ones(rows, dtype=torch.int8, device=device)
    shape = shape_of("rows", rows * LANES)
    height = min(_ROWS, shape.width // LANES)
    for kernel in (_far,) if real_of(compute) == tl.float64 else (_near, _far):
        launch(
            kernel,
            cdiv(rows, height),
            out,
            far,
            tensors[0],
            base,
            rows,
            length,
            ROWS=height,
            LEVELS=_LEVELS,
            warps=shape.warps,
        )
    return to_bytes(out)
