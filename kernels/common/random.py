"""The random draws of Bernoulli masks: Philox4x32-7, 16 bits an element, by flat index.

Source: Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"; seven
rounds pass BigCrush (their table 2). In canonical block b, counter b * 128 + j gives the draws of
elements j, 128 + j, ..., 896 + j of the block: words in order, low half first.
"""

from __future__ import annotations

import numpy as np

from .canonical import BLOCK
from .convert import Array

__all__ = ["draws", "philox4x32"]

ROUNDS = 7
_COUNTERS = 128
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def philox4x32(counters: Array, key: int, rounds: int = ROUNDS) -> Array:
    """Return [n, 4] words (uint64 holding 32 bits) for 64-bit counters [n] under a 64-bit key."""
    c0, c1 = counters & _LOW, counters >> _SHIFT
    c2 = np.zeros_like(c0)
    c3 = np.zeros_like(c0)
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(rounds):
        p0, p1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (p1 >> _SHIFT) ^ c1 ^ np.uint64(k0),
            p1 & _LOW,
            (p0 >> _SHIFT) ^ c3 ^ np.uint64(k1),
            p0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    words: Array = np.stack([c0, c1, c2, c3], axis=-1)
    return words


def draws(key: int, count: int) -> Array:
    """The 16-bit draws of elements 0..count-1, as [count] uint16."""
    blocks = -(-count // BLOCK)
    words = philox4x32(np.arange(blocks * _COUNTERS, dtype=np.uint64), key)
    halves = np.stack([words & np.uint64(0xFFFF), words >> np.uint64(16)], axis=-1)
    # [block, counter, word, half] -> element = (word, half) * 128 + counter
    ordered = halves.reshape(blocks, _COUNTERS, 8).transpose(0, 2, 1)
    flat: Array = ordered.reshape(-1)[:count].astype(np.uint16)
    return flat
