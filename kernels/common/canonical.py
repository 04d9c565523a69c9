"""The one order in which sums are added, whatever the vector width, thread count or device.

A block is 1,024 elements: 32 lanes each add every 32nd element in order, a fixed tree adds the lanes.
Block sums are added in order within a tile of 256 blocks, in float64; tile sums are added exactly.
"""

from __future__ import annotations

import numpy as np

from .convert import Array

__all__ = ["BLOCK", "LANES", "TILE", "column_sums", "group_height", "row_sums", "tile_sums"]

BLOCK = 1024
LANES = 32
TILE = 256 * BLOCK


def _block_sums(terms: Array, room: int) -> Array:
    """The float64 sum of every block of `terms` ([n], n <= room; room is a multiple of BLOCK)."""
    padded = np.zeros(room, terms.dtype)
    padded[: terms.size] = terms
    steps = padded.reshape(-1, BLOCK // LANES, LANES)
    lanes = np.zeros((steps.shape[0], LANES), terms.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(BLOCK // LANES):
            lanes += steps[:, step]
        width = LANES // 2
        while width:
            lanes[:, :width] += lanes[:, width : 2 * width]
            width //= 2
    blocks: Array = lanes[:, 0].astype(np.float64)
    return blocks


def tile_sums(terms: Array) -> list[float]:
    """One float64 sum per tile of `terms` ([n]; its dtype is the lanes' type)."""
    blocks = _block_sums(terms, max(1, -(-terms.size // TILE)) * TILE).reshape(-1, TILE // BLOCK)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = np.zeros(blocks.shape[0])
        for block in range(TILE // BLOCK):
            sums += blocks[:, block]
    return [float(value) for value in sums]


def row_sums(terms: Array, length: int) -> Array:
    """One float64 sum per row of `length` elements of `terms` ([n]; its dtype is the lanes' type).

    Blocks and tiles are the tensor's: a block that holds a part of a row counts as if the rest of it
    were 0. Block sums are added in order within a tile, then a row's tiles in order, all in float64.
    """
    sums = np.zeros(terms.size // length)
    with np.errstate(over="ignore", invalid="ignore"):
        for row in range(sums.size):
            at, end = row * length, (row + 1) * length
            while at < end:
                stop = min(end, (at // TILE + 1) * TILE)
                start = at // BLOCK * BLOCK
                part = np.concatenate([np.zeros(at - start, terms.dtype), terms[at:stop]])
                blocks = _block_sums(part, -(-part.size // BLOCK) * BLOCK)
                sums[row] += sum(blocks[1:], blocks[0])
                at = stop
    return sums


def group_height(rows: int, columns: int) -> int:
    """Rows of a group in which columns are added: at most 16 groups, fewer where columns are many."""
    return -(-rows // max(1, min(16, 2**18 // columns)))


def column_sums(terms: Array, columns: int) -> Array:
    """One float64 sum per column of `terms` ([rows * columns], float64).

    Each column is added in order within a group of rows (`group_height`), then the groups in order.
    """
    rows = terms.reshape(-1, columns)
    height = group_height(rows.shape[0], columns)
    sums = np.zeros(columns)
    with np.errstate(over="ignore", invalid="ignore"):
        for at in range(0, rows.shape[0], height):
            part = np.zeros(columns)
            for row in rows[at : at + height]:
                part += row
            sums += part
    return sums
