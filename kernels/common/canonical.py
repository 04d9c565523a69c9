"""The one order in which sums are added, whatever the vector width, thread count or device.

A block is 1,024 elements: 32 lanes each add every 32nd element in order, a fixed tree adds the lanes.
Block sums are added in order within a tile of 256 blocks, in float64; tile sums are added exactly.
"""

from __future__ import annotations

import numpy as np

from .convert import Array

__all__ = ["BLOCK", "LANES", "TILE", "tile_sums"]

BLOCK = 1024
LANES = 32
TILE = 256 * BLOCK


def tile_sums(terms: Array) -> list[float]:
    """One float64 sum per tile of `terms` ([n]; its dtype is the lanes' type)."""
    count = max(1, -(-terms.size // TILE)) * TILE
    padded = np.zeros(count, terms.dtype)
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
        blocks = lanes[:, 0].astype(np.float64).reshape(-1, TILE // BLOCK)
        sums = np.zeros(blocks.shape[0])
        for block in range(TILE // BLOCK):
            sums += blocks[:, block]
    return [float(value) for value in sums]
