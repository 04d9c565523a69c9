"""mask in Triton: the int8 mask that a rule stands for; see spec.py."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from ..common.triton.draws import draw_of
from ..common.triton.elements import index_of, load
from ..common.triton.launch import cdiv, launch, pack_numbers, real_of, shape_of
from ..common.triton.ranks import limit_of, rank_tables
from ..common.triton.rules import kinds_of, rule_mask, rule_numbers

__all__ = ["run"]


@triton.jit
def _mask(out, delta, table, numbers, count, KIND: tl.constexpr, WIDTH: tl.constexpr, REAL: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * WIDTH
    places = tl.arange(0, WIDTH)
    offsets = start + places
    inside = offsets < count
    value = load(delta, offsets, inside, REAL)
    draw = 0
    limit = 0
    if KIND == "bernoulli" or KIND == "rank_bernoulli":
        draw = draw_of(offsets, index_of(numbers, 1))
    if KIND == "rank_bernoulli":
        limit = limit_of(table, value, start, places, inside, index_of(numbers, 0))
    keeps = rule_mask(KIND, numbers, 0, value, start, places, draw, limit, 0)
    tl.store(out + offsets, keeps.to(tl.int8), mask=inside)


def run(rule: tuple[Any, ...], delta: torch.Tensor, out: torch.Tensor) -> None:
    """The contract; writes `out` (int8)."""
    compute = "float64" if delta.dtype == torch.float64 else "float32"
    shape = shape_of("scan", out.numel())
    packed = pack_numbers(out.device, rule_numbers(rule))
    launch(
        _mask,
        cdiv(out.numel(), shape.width),
        out,
        delta,
        rank_tables([rule], [delta], None, compute, packed)[0],
        packed,
        out.numel(),
        KIND=kinds_of([rule])[0],
        WIDTH=shape.width,
        REAL=real_of(compute),
        warps=shape.warps,
    )
