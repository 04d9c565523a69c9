"""Chances by rank: ranks.py's contract, in Triton. A table of thresholds a segment, then a lookup an element.

A table is int16 [segments, 257]: the key of the segment's class 0, then the thresholds of the classes (16 bits,
unsigned). It is per row, not per element: two bytes times 257 for a row of up to 65,536.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from ..ranks import CLASSES, SEGMENT
from .elements import index_of, keys_of, load, load_delta
from .launch import INTERPRETED, cdiv, launch, pack_numbers, real_of

__all__ = ["limit_of", "rank_tables"]

_CLASSES = tl.constexpr(CLASSES)
_SEGMENT = tl.constexpr(SEGMENT)
_STRIDE = tl.constexpr(1 + CLASSES)
#: Elements that a program ranks at a time, and segments at most: its histogram has 256 places for each.
_WIDTH, _SEGMENTS = (1 << 15, 256) if INTERPRETED else (2048, 8)


@triton.jit
def _rank_keys(value):
    """Magnitudes cut after four bits of mantissa (int32), and whether they are finite."""
    if value.dtype == tl.float64:
        keys = (keys_of(value) >> 48).to(tl.int32)
        return keys, keys < 0x7FF0
    else:
        keys = keys_of(value) >> 19
        return keys, keys < 0xFF0


@triton.jit
def _classes(keys, finite, first):
    near = tl.minimum(tl.maximum(keys - first, 0), _CLASSES - 2)
    return tl.where(finite, near, _CLASSES - 1)


@triton.jit
def limit_of(table, delta, start, places, inside, row):
    """What each element's draw must be below (int32); `places` are the elements' (int32), from `start` on.

    Divides 64 bits once a program: rows have less than 2^30 elements.
    """
    ahead = (start % row).to(tl.int32) + places
    segments_per_row = (row + (_SEGMENT - 1)) // _SEGMENT
    step = row.to(tl.int32)
    segment = (start // row + ahead // step) * segments_per_row + (ahead % step) // _SEGMENT
    at = table + segment * _STRIDE
    keys, finite = _rank_keys(delta)
    first = tl.load(at, mask=inside, other=0).to(tl.int32) & 0xFFFF
    limit = tl.load(at + 1 + _classes(keys, finite, first), mask=inside, other=0)
    return limit.to(tl.int32) & 0xFFFF


@triton.jit
def _rank(
    table,
    tensor,
    base,
    numbers,
    count,
    row,
    segments,
    HAS_BASE: tl.constexpr,
    SEGMENTS: tl.constexpr,
    WIDTH: tl.constexpr,
    REAL: tl.constexpr,
):
    per_row = (row + (_SEGMENT - 1)) // _SEGMENT
    segment = tl.program_id(0).to(tl.int64) * SEGMENTS + tl.arange(0, SEGMENTS)
    ahead = segment % per_row * _SEGMENT
    begin = segment // per_row * row + ahead
    # Of segments past the last one, which is none's, no element.
    size = tl.maximum(tl.minimum(tl.minimum(row - ahead, count - begin), _SEGMENT), 0).to(tl.int32)
    longest = tl.max(size, 0)
    places = tl.arange(0, WIDTH)[None, :]
    top = tl.zeros((SEGMENTS,), tl.int32)
    for done in range(0, longest, WIDTH):
        inside = places + done < size[:, None]
        offsets = begin[:, None] + done + places
        origin = 0.0
        if HAS_BASE:
            origin = load(base, offsets, inside, REAL)
        keys, finite = _rank_keys(load_delta(tensor, origin, offsets, inside, HAS_BASE, REAL))
        top = tl.maximum(top, tl.max(tl.where(finite & inside, keys, 0), 1))
    first = tl.maximum(top - (_CLASSES - 2), 0)
    counts = tl.zeros((SEGMENTS * _CLASSES,), tl.int32)
    for done in range(0, longest, WIDTH):
        inside = places + done < size[:, None]
        offsets = begin[:, None] + done + places
        origin = 0.0
        if HAS_BASE:
            origin = load(base, offsets, inside, REAL)
        keys, finite = _rank_keys(load_delta(tensor, origin, offsets, inside, HAS_BASE, REAL))
        classes = _classes(keys, finite, first[:, None]) + tl.arange(0, SEGMENTS)[:, None] * _CLASSES
        counts += tl.histogram(
            tl.reshape(classes, (SEGMENTS * WIDTH,)),
            SEGMENTS * _CLASSES,
            mask=tl.reshape(inside, (SEGMENTS * WIDTH,)),
        )
    counts = tl.reshape(counts, (SEGMENTS, _CLASSES))
    below = tl.cumsum(counts, 1) - counts
    steps = (2 * below + counts - size[:, None]).to(tl.float64)
    middle = index_of(numbers, 0).to(tl.float64, bitcast=True)
    slope = index_of(numbers, 1).to(tl.float64, bitcast=True) / tl.maximum(size - 1, 1).to(tl.float64)
    limits = middle + slope[:, None] * steps
    # What is then cut off is what rounding down would take.
    limits = tl.where(limits < 1.0, 1.0, tl.where(limits > 65535.0, 65535.0, limits)).to(tl.int32)
    known = segment < segments
    tl.store(table + segment * _STRIDE, first.to(tl.int16), mask=known)
    at = (table + segment * _STRIDE)[:, None] + (1 + tl.arange(0, _CLASSES))[None, :]
    tl.store(at, limits.to(tl.int16), mask=known[:, None])


def _power(count: int) -> int:
    return 1 << max(0, count - 1).bit_length()


def _rank_table(
    density: float, epsilon: float, row: int, tensor: torch.Tensor, base: torch.Tensor | None, compute: str
) -> torch.Tensor:
    count = tensor.numel()
    segments = count // row * cdiv(row, SEGMENT) + cdiv(count % row, SEGMENT)
    table = torch.empty(segments, 1 + CLASSES, dtype=torch.int16, device=tensor.device)
    width = min(_WIDTH, max(32, _power(min(row, count, SEGMENT))))
    height = min(_SEGMENTS, _WIDTH // width, _power(segments))
    launch(
        _rank,
        cdiv(segments, height),
        table,
        tensor,
        tensor if base is None else base,
        pack_numbers(tensor.device, [density * 65536.0 + 0.5, epsilon * 65536.0]),
        count,
        row,
        segments,
        HAS_BASE=base is not None,
        SEGMENTS=height,
        WIDTH=width,
        REAL=real_of(compute),
        warps=8,
    )
    return table


def rank_tables(
    rules: Sequence[tuple[Any, ...]],
    tensors: Sequence[torch.Tensor],
    base: torch.Tensor | None,
    compute: str,
    without: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    """For each tensor whose rule goes by rank a table that `limit_of` reads, for others `without`."""
    tables = []
    for rule, tensor in zip(rules, tensors, strict=True):
        table = without
        if rule[0] == "rank_bernoulli":
            _, density, epsilon, _, row = rule
            table = _rank_table(density, epsilon, row, tensor, base, compute)
        tables.append(table)
    return tuple(tables)
