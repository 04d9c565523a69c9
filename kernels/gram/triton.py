"""gram in Triton: all pairs in one launch, a canonical block's lanes in a row of a tensor; see spec.py."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from ..common.canonical import BLOCK, LANES, TILE, group_height
from ..common.triton.elements import load, load_delta
from ..common.triton.launch import cdiv, launch, real_of, shape_of, to_bytes
from ..common.triton.sums import add_lanes, blocks_of, tile_sums
from .spec import is_narrow

__all__ = ["run", "run_lines"]

_LANES = tl.constexpr(LANES)
_BLOCK = tl.constexpr(BLOCK)
_TILE_BLOCKS = tl.constexpr(TILE // BLOCK)


@triton.jit
def _values(
    tensors,
    base,
    offsets,
    inside,
    HAS_BASE: tl.constexpr,
    MODELS: tl.constexpr,
    REAL: tl.constexpr,
    LANE: tl.constexpr,
):
    origin = 0.0
    if HAS_BASE:
        origin = load(base, offsets, inside, REAL)
    values = ()
    for i in tl.static_range(MODELS):
        values = values + (load_delta(tensors[i], origin, offsets, inside, HAS_BASE, REAL).to(LANE),)
    return values


@triton.jit
def _add_products(sums, values, MODELS: tl.constexpr):
    """Every pair's product, (0, 0), (0, 1), ..., (1, 1), ..., onto the pair's sums."""
    added = ()
    for i in tl.static_range(MODELS):
        for j in tl.static_range(i, MODELS):
            added = added + (sums[len(added)] + values[i] * values[j],)
    return added


@triton.jit
def _zeros(PAIRS: tl.constexpr, SIZE: tl.constexpr, LANE: tl.constexpr):
    sums = ()
    for _ in tl.static_range(PAIRS):
        sums = sums + (tl.zeros(SIZE, LANE),)
    return sums


@triton.jit
def _gram(
    blocks,
    tensors,
    base,
    count,
    room,
    HAS_BASE: tl.constexpr,
    MODELS: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCKS: tl.constexpr,
    UNROLLED: tl.constexpr,
    REAL: tl.constexpr,
    LANE: tl.constexpr,
):
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    first = block[:, None] * _BLOCK + tl.arange(0, _LANES)[None, :]
    sums = _zeros(PAIRS, (BLOCKS, _LANES), LANE)
    # Unrolled, so that loads are under way while earlier ones are added.
    for step in tl.range(0, _BLOCK // _LANES, loop_unroll_factor=UNROLLED):
        offsets = first + step * _LANES
        sums = _add_products(
            sums, _values(tensors, base, offsets, offsets < count, HAS_BASE, MODELS, REAL, LANE), MODELS
        )
    for pair in tl.static_range(PAIRS):
        tl.store(blocks + pair * room + block, add_lanes(sums[pair], BLOCKS), mask=block < room)


def run(tensors: Sequence[torch.Tensor], base: torch.Tensor | None, compute: str) -> list[list[float]]:
    """The contract's partials: [tiles][pairs]."""
    models = len(tensors)
    pairs = models * (models + 1) // 2
    count = tensors[0].numel()
    room = blocks_of(count)
    # Zeros: the last tile's blocks past the end are not launched.
    blocks = torch.zeros(pairs, room, dtype=torch.float64, device=tensors[0].device)
    shape = shape_of("lanes", cdiv(count, BLOCK) * LANES, models)
    height = shape.width // LANES
    launch(
        _gram,
        cdiv(cdiv(count, BLOCK), height),
        blocks,
        tuple(tensors),
        blocks if base is None else base,
        count,
        room,
        HAS_BASE=base is not None,
        MODELS=models,
        PAIRS=pairs,
        BLOCKS=height,
        UNROLLED=4 if models <= 4 else 1,
        REAL=real_of(compute),
        LANE=tl.float32 if is_narrow(tensors, base, compute) else tl.float64,
        warps=shape.warps,
    )
    return tile_sums(blocks)


@triton.jit
def _gram_rows(
    sums,
    tensors,
    base,
    rows,
    length,
    HAS_BASE: tl.constexpr,
    MODELS: tl.constexpr,
    PAIRS: tl.constexpr,
    ROWS: tl.constexpr,
    REAL: tl.constexpr,
    LANE: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    begin = (row * length)[:, None]
    end = tl.where(row < rows, (row + 1) * length, 0)[:, None]
    block = row * length // _BLOCK
    whole = _zeros(PAIRS, (ROWS,), tl.float64)
    tile = _zeros(PAIRS, (ROWS,), tl.float64)
    # A row that starts within a block reaches into one more.
    for _ in range((length + _BLOCK - 1) // _BLOCK + 1):
        first = block[:, None] * _BLOCK + tl.arange(0, _LANES)[None, :]
        lanes = _zeros(PAIRS, (ROWS, _LANES), LANE)
        for step in range(_BLOCK // _LANES):
            offsets = first + step * _LANES
            inside = (offsets >= begin) & (offsets < end)
            lanes = _add_products(lanes, _values(tensors, base, offsets, inside, HAS_BASE, MODELS, REAL, LANE), MODELS)
        starts = block % _TILE_BLOCKS == 0
        wholes = ()
        tiles = ()
        for pair in tl.static_range(PAIRS):
            wholes = wholes + (tl.where(starts, whole[pair] + tile[pair], whole[pair]),)
            tiles = tiles + (tl.where(starts, 0.0, tile[pair]) + add_lanes(lanes[pair], ROWS),)
        whole = wholes
        tile = tiles
        block += 1
    for pair in tl.static_range(PAIRS):
        tl.store(sums + row * PAIRS + pair, whole[pair] + tile[pair], mask=row < rows)


@triton.jit
def _gram_columns(
    sums,
    tensors,
    base,
    rows,
    columns,
    height,
    HAS_BASE: tl.constexpr,
    MODELS: tl.constexpr,
    PAIRS: tl.constexpr,
    WIDTH: tl.constexpr,
    REAL: tl.constexpr,
):
    column = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    group = tl.program_id(1)
    row = group * height
    total = _zeros(PAIRS, (WIDTH,), tl.float64)
    for step in range(tl.minimum(height, rows - row)):
        offsets = (row + step).to(tl.int64) * columns + column
        values = _values(tensors, base, offsets, column < columns, HAS_BASE, MODELS, REAL, tl.float64)
        total = _add_products(total, values, MODELS)
    for pair in tl.static_range(PAIRS):
        tl.store(sums + (group * PAIRS + pair).to(tl.int64) * columns + column, total[pair], mask=column < columns)


def run_lines(
    tensors: Sequence[torch.Tensor], base: torch.Tensor | None, lines: tuple[int, int, bool], compute: str
) -> bytes:
    """The contract per line: float64 numbers, [lines][pairs]."""
    number, length, strided = lines
    models = len(tensors)
    pairs = models * (models + 1) // 2
    device = tensors[0].device
    common = {"HAS_BASE": base is not None, "MODELS": models, "PAIRS": pairs, "REAL": real_of(compute)}
    shape = shape_of("lanes", number * (1 if strided else LANES), models)
    if not strided:
        sums = torch.empty(number, pairs, dtype=torch.float64, device=device)
        rows = shape.width // LANES
        launch(
            _gram_rows,
            cdiv(number, rows),
            sums,
            tuple(tensors),
            sums if base is None else base,
            number,
            length,
            ROWS=rows,
            LANE=tl.float32 if is_narrow(tensors, base, compute) else tl.float64,
            warps=shape.warps,
            **common,
        )
        return to_bytes(sums)
    height = group_height(length, number)
    groups = cdiv(length, height)
    sums = torch.empty(groups, pairs, number, dtype=torch.float64, device=device)
    launch(
        _gram_columns,
        (cdiv(number, shape.width), groups),
        sums,
        tuple(tensors),
        sums if base is None else base,
        length,
        number,
        height,
        WIDTH=shape.width,
        warps=shape.warps,
        **common,
    )
    total = torch.zeros_like(sums[0])
    for group in sums:
        total += group
    return to_bytes(total.T)
