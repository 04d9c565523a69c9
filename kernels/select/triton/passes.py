"""The passes of select, in Triton: keys written, scanned, counted. Nothing here chooses."""

from __future__ import annotations

import triton
import triton.language as tl

from ...common.triton.elements import index_of, keys_of, load, load_delta
from ...common.triton.lines import line_of
from ...common.triton.rules import spread_of

__all__ = ["BUCKETS", "PADDING", "count_keys", "pick_keys", "scan_keys", "write_keys"]

#: Of a histogram that is made in a program before it is added.
BUCKETS = 1 << 11
#: Counters that many programs add to are so far from each other, in int64.
PADDING = 16
_BUCKETS, _PADDING = tl.constexpr(BUCKETS), tl.constexpr(PADDING)


@triton.jit
def _origin_of(base, offsets, inside, HAS_BASE: tl.constexpr, REAL: tl.constexpr):
    if HAS_BASE:
        return load(base, offsets, inside, REAL)
    else:
        return 0.0


@triton.jit
def _factor_of(factors, line, inside, HOW: tl.constexpr):
    if HOW == "lines":
        return tl.load(factors + line, mask=inside, other=0)
    else:
        return 0.0


@triton.jit
def _keys_of(
    tensors,
    origin,
    factor,
    offsets,
    inside,
    AT: tl.constexpr,
    HOW: tl.constexpr,
    HAS_BASE: tl.constexpr,
    MODELS: tl.constexpr,
    REAL: tl.constexpr,
):
    """The keys of tensor AT, or of how far all are apart."""
    if HOW == "spread":
        return keys_of(spread_of(tensors, offsets, inside, MODELS, REAL))
    elif HOW == "lines":
        return keys_of(load_delta(tensors[AT], origin, offsets, inside, HAS_BASE, REAL) * factor)
    else:
        return keys_of(load_delta(tensors[AT], origin, offsets, inside, HAS_BASE, REAL))


@triton.jit
def write_keys(
    out,
    tensors,
    base,
    factors,
    numbers,
    size,
    lines,
    length,
    HOW: tl.constexpr,
    STRIDED: tl.constexpr,
    HAS_BASE: tl.constexpr,
    MODELS: tl.constexpr,
    KINDS: tl.constexpr,
    RUN: tl.constexpr,
    WIDTH: tl.constexpr,
    REAL: tl.constexpr,
):
    """Keys of runs of elements, `stride` apart and each at most `jump` further, to `out` [KINDS, size]."""
    place = tl.program_id(0).to(tl.int64) * WIDTH + tl.arange(0, WIDTH)
    inside = place < size
    begin, stride, jump = index_of(numbers, 0), index_of(numbers, 1), index_of(numbers, 2)
    # Multiples of the golden ratio, the most even places: a fixed step would meet the same columns again.
    further = tl.umulhi((place // RUN).to(tl.uint32) * 0x9E3779B9, jump.to(tl.uint32))
    offsets = begin + place // RUN * stride + further.to(tl.int64) + place % RUN
    line = offsets % lines if STRIDED else offsets // length
    origin = _origin_of(base, offsets, inside, HAS_BASE, REAL)
    factor = _factor_of(factors, line, inside, HOW)
    for i in tl.static_range(KINDS):
        keys = _keys_of(tensors, origin, factor, offsets, inside, i, HOW, HAS_BASE, MODELS, REAL)
        tl.store(out + i * size + place, keys, mask=inside)


@triton.jit
def scan_keys(
    slots,
    tallies,
    places,
    tensors,
    base,
    factors,
    brackets,
    count,
    lines,
    length,
    room,
    OWNERS: tl.constexpr,
    ENTRIES: tl.constexpr,
    STEPS: tl.constexpr,
    SEGMENTS: tl.constexpr,
    HOW: tl.constexpr,
    STRIDED: tl.constexpr,
    HAS_BASE: tl.constexpr,
    MODELS: tl.constexpr,
    KINDS: tl.constexpr,
    WIDTH: tl.constexpr,
    REAL: tl.constexpr,
):
    """Of each entry, a tensor and a bracket: how many keys are above, at the ends, and between; and where those are.

    `tallies` [2 ENTRIES (+ 1), programs]: keys above, and at the high end times 2^16; at the low end, where it is
    another; of spread, how many elements differ. `places` [ENTRIES, SEGMENTS, room], of the keys between; `slots`
    [ENTRIES, SEGMENTS, PADDING]: how many in each segment, on a line of the cache of its own.
    """
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    # Each lane adds to another counter than its neighbors, and than itself in the next program: of one counter for a
    # warp, the compiler would have its lanes vote at every element.
    segment = (tl.arange(0, WIDTH) + program % SEGMENTS) % SEGMENTS
    rows: tl.constexpr = 2 * ENTRIES + 1 if HOW == "spread" else 2 * ENTRIES
    tally = ()
    for _ in tl.static_range(rows):
        tally = tally + (tl.zeros((WIDTH,), tl.uint32),)
    for step in range(STEPS):
        start = (program.to(tl.int64) * STEPS + step) * WIDTH
        offsets = start + tl.arange(0, WIDTH)
        inside = offsets < count
        origin = _origin_of(base, offsets, inside, HAS_BASE, REAL)
        factor = _factor_of(factors, line_of(start, lines, length, STRIDED, WIDTH), inside, HOW)
        keys = ()
        for i in tl.static_range(KINDS):
            key = _keys_of(tensors, origin, factor, offsets, inside, i, HOW, HAS_BASE, MODELS, REAL)
            keys = keys + (tl.where(inside, key, -1),)
        added = ()
        for e in tl.static_range(ENTRIES):
            key = keys[OWNERS[e]]
            low = index_of(brackets, 2 * e).to(key.dtype)
            high = index_of(brackets, 2 * e + 1).to(key.dtype)
            added = added + (tl.where(key > high, 1, tl.where(key == high, 1 << 16, 0)).to(tl.uint32),)
            added = added + (((key == low) & (low != high)).to(tl.uint32),)
            between = (key > low) & (key < high)
            shelf = e * SEGMENTS + segment
            slot = tl.atomic_add(slots + shelf * _PADDING, 1, between, "relaxed")
            at = shelf.to(tl.int64) * room + slot
            tl.store(places + at, offsets.to(places.dtype.element_ty), mask=between & (slot < room))
        if HOW == "spread":
            added = added + ((keys[0] > 0).to(tl.uint32),)
        sums = ()
        for row in tl.static_range(rows):
            sums = sums + (tally[row] + added[row],)
        tally = sums
    for row in tl.static_range(rows):
        tl.store(tallies + row * programs + program, tl.sum(tally[row], 0).to(tl.int32))


@triton.jit
def pick_keys(
    out,
    places,
    tensors,
    base,
    factors,
    numbers,
    size,
    lines,
    length,
    HOW: tl.constexpr,
    STRIDED: tl.constexpr,
    HAS_BASE: tl.constexpr,
    MODELS: tl.constexpr,
    KINDS: tl.constexpr,
    WIDTH: tl.constexpr,
    REAL: tl.constexpr,
):
    """The keys of the one kind at `places` to `out` [size]; -1 where a place is negative."""
    at = tl.program_id(0).to(tl.int64) * WIDTH + tl.arange(0, WIDTH)
    offsets = tl.load(places + at, mask=at < size, other=-1).to(tl.int64)
    inside = offsets >= 0
    line = offsets % lines if STRIDED else offsets // length
    origin = _origin_of(base, offsets, inside, HAS_BASE, REAL)
    factor = _factor_of(factors, line, inside, HOW)
    keys = _keys_of(tensors, origin, factor, offsets, inside, 0, HOW, HAS_BASE, MODELS, REAL)
    tl.store(out + at, tl.where(inside, keys, -1), mask=at < size)


@triton.jit
def count_keys(
    counts,
    tensors,
    base,
    factors,
    numbers,
    count,
    lines,
    length,
    OWNERS: tl.constexpr,
    ENTRIES: tl.constexpr,
    NARROW: tl.constexpr,
    OPEN: tl.constexpr,
    HOW: tl.constexpr,
    STRIDED: tl.constexpr,
    HAS_BASE: tl.constexpr,
    MODELS: tl.constexpr,
    KINDS: tl.constexpr,
    WIDTH: tl.constexpr,
    REAL: tl.constexpr,
):
    """The contract of run_counts; `numbers`: buckets, then of each entry where they begin and a shift.

    OPEN: the last bucket holds all keys beyond, too.
    """
    start = tl.program_id(0).to(tl.int64) * WIDTH
    offsets = start + tl.arange(0, WIDTH)
    inside = offsets < count
    buckets = index_of(numbers, 0)
    origin = _origin_of(base, offsets, inside, HAS_BASE, REAL)
    factor = _factor_of(factors, line_of(start, lines, length, STRIDED, WIDTH), inside, HOW)
    for i in tl.static_range(KINDS):
        keys = _keys_of(tensors, origin, factor, offsets, inside, i, HOW, HAS_BASE, MODELS, REAL).to(tl.int64)
        for e in tl.static_range(ENTRIES):
            if OWNERS[e] == i:
                low = index_of(numbers, 1 + 2 * e)
                bucket = (keys - low) >> index_of(numbers, 2 + 2 * e)
                if OPEN:
                    bucket = tl.minimum(bucket, buckets - 1)
                counted = inside & (keys >= low) & (bucket < buckets)
                to = counts + e * buckets
                if NARROW:
                    made = tl.histogram(bucket.to(tl.int32), _BUCKETS, mask=counted)
                    each = tl.arange(0, _BUCKETS)
                    tl.atomic_add(to + each, made.to(tl.int64), mask=(each < buckets) & (made > 0), sem="relaxed")
                else:
                    tl.atomic_add(to + bucket, tl.full((WIDTH,), 1, tl.int64), mask=counted, sem="relaxed")
