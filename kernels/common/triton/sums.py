"""The one order of sums: canonical.py's contract, in Triton.

A kernel holds the 32 lanes of some blocks as a tensor [blocks, 32], adds their elements step by step, and
hands the lanes to `add_lanes`; `tile_sums` then adds block sums in order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..canonical import BLOCK, LANES, TILE
from .launch import cdiv, launch

__all__ = ["add_lanes", "add_steps", "blocks_of", "tile_sums"]

_BLOCKS = TILE // BLOCK
_LANES = tl.constexpr(LANES)


@triton.jit
def _halve(terms, BLOCKS: tl.constexpr, HALF: tl.constexpr):
    return tl.split(tl.permute(tl.reshape(terms, (BLOCKS, 2, HALF, _LANES)), (0, 2, 3, 1)))


@triton.jit
def add_steps(lanes, terms, BLOCKS: tl.constexpr, LEVELS: tl.constexpr):
    """[BLOCKS, 2 ** LEVELS, 32] terms onto [BLOCKS, 32] lanes, one step after the other."""
    parts = (terms,)
    for level in tl.static_range(LEVELS):
        halves = ()
        for i in tl.static_range(1 << level):
            halves = halves + _halve(parts[i], BLOCKS, 1 << (LEVELS - 1 - level))
        parts = halves
    for i in tl.static_range(1 << LEVELS):
        lanes = lanes + tl.reshape(parts[i], (BLOCKS, _LANES))
    return lanes


@triton.jit
def _fold(lanes, BLOCKS: tl.constexpr, HALF: tl.constexpr):
    left, right = tl.split(tl.permute(tl.reshape(lanes, (BLOCKS, 2, HALF)), (0, 2, 1)))
    return left + right


@triton.jit
def add_lanes(lanes, BLOCKS: tl.constexpr):
    """[BLOCKS, 32] lanes to [BLOCKS] block sums in float64: half on half, five times."""
    for level in tl.static_range(5):
        lanes = _fold(lanes, BLOCKS, 16 >> level)
    return tl.reshape(lanes, (BLOCKS,)).to(tl.float64)


def blocks_of(count: int) -> int:
    """Blocks of whole tiles that `count` elements take up: what a buffer of block sums has room for."""
    return max(1, -(-count // TILE)) * _BLOCKS


@triton.jit
def _add_blocks(sums, blocks, rows, STEPS: tl.constexpr, ROWS: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    total = tl.zeros((ROWS,), tl.float64)
    for step in range(STEPS):
        total += tl.load(blocks + row.to(tl.int64) * STEPS + step, mask=inside, other=0)
    tl.store(sums + row, total, mask=inside)


def tile_sums(blocks: torch.Tensor) -> list[list[float]]:
    """[sums, blocks] float64 block sums, of whole tiles, to [tiles][sums]: a tile's blocks are added in order."""
    count = blocks.shape[0]
    sums = torch.empty(count, blocks.shape[1] // _BLOCKS, dtype=torch.float64, device=blocks.device)
    rows = 32
    launch(_add_blocks, cdiv(sums.numel(), rows), sums, blocks, sums.numel(), STEPS=_BLOCKS, ROWS=rows, warps=1)
    tiles: list[list[float]] = sums.T.tolist()
    return tiles
