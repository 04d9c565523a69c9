"""Mask rules: mask/spec.py's contract for elements in registers; nothing of them is stored.

A rule reaches a kernel as its kind, which is compiled in, and RULE_NUMBERS integers among the launch's numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl

from .draws import philox, pick_draw
from .elements import index_of, keys_of, load
from .ranks import limit_of

__all__ = [
    "RULE_NUMBERS",
    "is_drawn",
    "kinds_of",
    "rule_keeps",
    "rule_mask",
    "rule_numbers",
    "rule_words",
    "spread_of",
]

#: Of a rule: o_bits, o_last, i_bits, i_last | keep, key | bits, last | row, key.
RULE_NUMBERS = 4
_GREATEST = (1 << 63) - 1


def kinds_of(rules: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """The rules' kinds, as Triton 3.6 wants what is taken out of a tuple; "top": a band with nothing cut out."""
    tops = (rule[0] == "band" and rule[4] < 0 and rule[3] >= _GREATEST for rule in rules)
    return tuple(tl.constexpr("top" if top else rule[0]) for top, rule in zip(tops, rules, strict=True))


def is_drawn(kind: str) -> bool:
    """Whether a rule of this kind looks at the elements' random draws."""
    return kind in ("bernoulli", "rank_bernoulli")


def rule_numbers(rule: tuple[Any, ...]) -> list[int]:
    """A rule's numbers, RULE_NUMBERS of them."""
    kind, *numbers = rule
    if kind == "rank_bernoulli":
        _, _, key, row = numbers
        numbers = [row, key]
    numbers = [min(number, _GREATEST) if kind in ("band", "spread") else number for number in numbers]
    return [*numbers, *[0] * (RULE_NUMBERS - len(numbers))]


@triton.jit
def _inside_cut(keys, start, places, bits, last):
    """Whether elements belong to the largest that end at the cut (select/spec.py).

    Compares keys in their own width and places in 32 bits: of 64, each takes two instructions more.
    """
    if keys.dtype == tl.int32:
        bits = tl.minimum(bits, 0x7FFFFFFF).to(tl.int32)
    reach = tl.minimum(tl.maximum(last - start, -1), 0x7FFFFFFF).to(tl.int32)
    return keys > tl.where(places <= reach, bits - 1, bits)


@triton.jit
def spread_of(tensors, offsets, inside, MODELS: tl.constexpr, REAL: tl.constexpr):
    """How far apart all tensors are at each element (spread.py)."""
    values = ()
    for i in tl.static_range(MODELS):
        values = values + (load(tensors[i], offsets, inside, REAL),)
    total = tl.zeros_like(values[0])
    for i in tl.static_range(MODELS):
        for j in tl.static_range(i + 1, MODELS):
            apart = values[i] - values[j]
            total = total + apart * apart
    return total


@triton.jit
def rule_mask(KIND: tl.constexpr, numbers, at, delta, start, places, draw, limit, apart):
    """Whether elements are kept, at some places (int32) from `start` (int64) on.

    `draw` and, for ranks, `limit` (int32) are read by random kinds; `apart`, of `spread_of`, by "spread".
    """
    if KIND == "top":
        return _inside_cut(keys_of(delta), start, places, index_of(numbers, at), index_of(numbers, at + 1))
    elif KIND == "band":
        keys = keys_of(delta)
        outer = _inside_cut(keys, start, places, index_of(numbers, at), index_of(numbers, at + 1))
        inner = _inside_cut(keys, start, places, index_of(numbers, at + 2), index_of(numbers, at + 3))
        return outer & ~inner
    elif KIND == "spread":
        return _inside_cut(keys_of(apart), start, places, index_of(numbers, at), index_of(numbers, at + 1))
    elif KIND == "bernoulli":
        return draw < index_of(numbers, at).to(tl.int32)
    elif KIND == "rank_bernoulli":
        return draw < limit
    else:
        return places >= 0


@triton.jit
def rule_words(counters, numbers, at, KIND: tl.constexpr):
    """The random words of some counters that a rule's draws are picked from, if it draws."""
    if KIND == "bernoulli" or KIND == "rank_bernoulli":
        return philox(counters, index_of(numbers, at + 1))
    else:
        return 0, 0, 0, 0


@triton.jit
def rule_keeps(delta, table, numbers, at, words, slab, apart, start, places, inside, KIND: tl.constexpr):
    """Whether one model's elements are kept, at some places (int32) from `start` (int64) on.

    The places are those of one of the eight slabs that the counters of `words` are for. `table` is of
    `rank_tables`, `apart` of `spread_of`.
    """
    draw = 0
    limit = 0
    if KIND == "bernoulli" or KIND == "rank_bernoulli":
        draw = pick_draw(words, slab)
    if KIND == "rank_bernoulli":
        limit = limit_of(table, delta, start, places, inside, index_of(numbers, at))
    return rule_mask(KIND, numbers, at, delta, start, places, draw, limit, apart)
