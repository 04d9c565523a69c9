"""mask: the int8 mask (0 or 1) that a rule stands for.

    ("all",)                            m[e] = 1
    ("band", o_bits, o_last, i_bits, i_last)
                                        m[e] = 1 inside the outer cut and not inside the inner one
    ("bernoulli", keep, key)            m[e] = 1 where the element's 16-bit draw is below keep
    ("spread", bits, last)              m[e] = 1 where V[e], how far the request's tensors are apart
                                        (common/spread.py), is inside the cut; one mask for all of them
    ("rank_bernoulli", density, epsilon, key, row)
                                        m[e] = 1 where the draw is below the element's threshold, which
                                        grows with its rank in its row (common/ranks.py)

In: a task vector [N] in the compute type. Out: [N] int8. A cut is that of select's spec; the draws
are those of common/random.py. No arithmetic, so there is no tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..common.convert import Array, magnitude_keys
from ..common.random import draws
from ..common.ranks import thresholds
from ..common.spread import spread

PASSES = 1


def _inside(keys: Array, bits: int, last: int) -> Array:
    limit = min(bits, int(np.iinfo(keys.dtype).max))
    index = np.arange(keys.size)
    inside: Array = (keys > limit) | ((keys == limit) & (index <= last))
    return inside


def run(rule: tuple[Any, ...], delta: Array) -> Array:
    """The contract, bit for bit."""
    kind, *numbers = rule
    if kind == "all":
        return np.ones(delta.size, np.int8)
    if kind == "bernoulli":
        keep, key = numbers
        kept: Array = draws(key, delta.size).astype(np.int64) < keep
        return kept.astype(np.int8)
    if kind == "rank_bernoulli":
        density, epsilon, key, row = numbers
        below: Array = draws(key, delta.size) < thresholds(delta, density, epsilon, row)
        return below.astype(np.int8)
    keys = magnitude_keys(delta)
    outer_bits, outer_last, inner_bits, inner_last = numbers
    band = _inside(keys, outer_bits, outer_last) & ~_inside(keys, inner_bits, inner_last)
    return band.astype(np.int8)


def run_each(
    rules: Sequence[tuple[Any, ...]], tensors: Sequence[Array], deltas: Sequence[Array], compute: str
) -> list[Array]:
    """The masks of a request's tensors, whose rules may look at all of them."""
    masks = []
    for rule, delta in zip(rules, deltas, strict=True):
        if rule[0] == "spread":
            masks.append(_inside(magnitude_keys(spread(tensors, compute)), *rule[1:]).astype(np.int8))
        else:
            masks.append(run(rule, delta))
    return masks
