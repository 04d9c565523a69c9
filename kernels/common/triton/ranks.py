"""Chances by rank: ranks.py's contract, in Triton. A table of thresholds a segment, then a lookup an element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from ..ranks import CLASSES, SEGMENT

__all__ = ["limit_of", "rank_tables"]

_CLASSES = tl.constexpr(CLASSES)
_SEGMENT = tl.constexpr(SEGMENT)


@triton.jit
def limit_of(table, delta, start, places, row):
    """What each element's draw must be below (int32); `places` are the elements' (int32), from `start` on."""
    return places


def rank_tables(
    rules: Sequence[tuple[Any, ...]],
    tensors: Sequence[torch.Tensor],
    base: torch.Tensor | None,
    compute: str,
    without: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    """For each tensor whose rule goes by rank a table that `limit_of` reads, for others `without`."""
    for rule in rules:
        if rule[0] == "rank_bernoulli":
            raise NotImplementedError
    return (without,) * len(rules)
