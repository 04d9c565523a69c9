"""The random draws of Bernoulli masks: random.py's contract, in Triton."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["draw_of", "philox", "pick_draw"]

_ROUNDS = tl.constexpr(7)


@triton.jit
def philox(counter, key):
    """Philox4x32-7: four uint32 words for 64-bit counters under a 64-bit key (both int64)."""
    c0 = counter.to(tl.uint32)
    c1 = (counter >> 32).to(tl.uint32)
    c2 = tl.zeros_like(c0)
    c3 = tl.zeros_like(c0)
    k0 = key.to(tl.uint32)
    k1 = (key >> 32).to(tl.uint32)
    for _ in tl.static_range(_ROUNDS):
        high0 = tl.umulhi(c0, 0xD2511F53)
        high1 = tl.umulhi(c2, 0xCD9E8D57)
        low0 = c0 * 0xD2511F53
        low1 = c2 * 0xCD9E8D57
        c0 = high1 ^ c1 ^ k0
        c2 = high0 ^ c3 ^ k1
        c1 = low1
        c3 = low0
        k0 = k0 + 0x9E3779B9
        k1 = k1 + 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def pick_draw(words, slab):
    """The 16-bit draws (int32) of the elements that lie slab * 128 past their counters' first."""
    w0, w1, w2, w3 = words
    word = tl.where(slab < 4, tl.where(slab < 2, w0, w1), tl.where(slab < 6, w2, w3))
    return ((word >> ((slab & 1) * 16)) & 0xFFFF).to(tl.int32)


@triton.jit
def draw_of(element, key):
    """The 16-bit draw (int32) of each element (int64 flat indices), one at a time: eight times the work."""
    return pick_draw(philox((element >> 10) * 128 + (element & 127), key), (element >> 7) & 7)
