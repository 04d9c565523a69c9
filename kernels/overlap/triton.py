"""overlap in Triton: counts of what is changed alone and by several, in one launch; see spec.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from ..common.triton.elements import load, load_delta
from ..common.triton.launch import cdiv, launch, pack_numbers, real_of, shape_of
from ..common.triton.ranks import rank_tables
from ..common.triton.rules import RULE_NUMBERS, is_drawn, kinds_of, rule_keeps, rule_numbers, rule_words, spread_of

__all__ = ["run"]

_STEP = tl.constexpr(RULE_NUMBERS)
_SLABS, _SLAB = tl.constexpr(8), tl.constexpr(128)


@triton.jit
def _count(
    counts,
    tensors,
    base,
    tables,
    numbers,
    count,
    KINDS: tl.constexpr,
    DRAWN: tl.constexpr,
    SPREAD: tl.constexpr,
    HAS_BASE: tl.constexpr,
    MODELS: tl.constexpr,
    WIDTH: tl.constexpr,
    REAL: tl.constexpr,
):
    slabs: tl.constexpr = _SLABS if DRAWN else 1
    start = tl.program_id(0).to(tl.int64) * (WIDTH * slabs)
    element = tl.arange(0, WIDTH)
    words = ()
    alone = ()
    shared = ()
    for i in tl.static_range(MODELS):
        words = words + (rule_words(start // 8 + element, numbers, i * _STEP, KINDS[i]),)
        alone = alone + (tl.zeros((WIDTH,), tl.int32),)
        shared = shared + (tl.zeros((WIDTH,), tl.int32),)
    # Not unrolled: eight slabs at once are more than registers hold.
    for slab in range(slabs):
        places = element // _SLAB * (_SLAB * slabs) + element % _SLAB + slab * _SLAB
        inside = start + places < count
        origin = 0.0
        if HAS_BASE:
            origin = load(base, start + places, inside, REAL)
        apart = 0
        if SPREAD:
            apart = spread_of(tensors, start + places, inside, MODELS, REAL)
        together = tl.zeros((WIDTH,), tl.int32)
        changed = ()
        for i in tl.static_range(MODELS):
            delta = load_delta(tensors[i], origin, start + places, inside, HAS_BASE, REAL)
            keeps = rule_keeps(
                delta, tables[i], numbers, i * _STEP, words[i], slab, apart, start, places, inside, KINDS[i]
            )
            changed = changed + (keeps & inside & (delta != 0),)
            together += changed[i].to(tl.int32)
        alones = ()
        shareds = ()
        for i in tl.static_range(MODELS):
            alones = alones + (alone[i] + (changed[i] & (together == 1)).to(tl.int32),)
            shareds = shareds + (shared[i] + (changed[i] & (together > 1)).to(tl.int32),)
        alone = alones
        shared = shareds
    for i in tl.static_range(MODELS):
        at = counts + 2 * i * tl.num_programs(0) + tl.program_id(0)
        tl.store(at, tl.sum(alone[i], 0))
        tl.store(at + tl.num_programs(0), tl.sum(shared[i], 0))


def run(
    tensors: Sequence[torch.Tensor], base: torch.Tensor | None, rules: Sequence[tuple[Any, ...]], compute: str
) -> list[tuple[int, int]]:
    """The contract: (alone, shared) for each tensor."""
    models = len(tensors)
    kinds = kinds_of(rules)
    drawn = any(map(is_drawn, kinds))
    count = tensors[0].numel()
    shape = shape_of("masked" if drawn else "combine", count, models)
    programs = cdiv(count, shape.width * (_SLABS.value if drawn else 1))
    packed = pack_numbers(tensors[0].device, [number for rule in rules for number in rule_numbers(rule)])
    counts = torch.empty(2 * models, programs, dtype=torch.int32, device=packed.device)
    launch(
        _count,
        programs,
        counts,
        tuple(tensors),
        packed if base is None else base,
        rank_tables(rules, tensors, base, compute, packed),
        packed,
        count,
        KINDS=kinds,
        DRAWN=drawn,
        SPREAD="spread" in kinds,
        HAS_BASE=base is not None,
        MODELS=models,
        WIDTH=shape.width,
        REAL=real_of(compute),
        warps=shape.warps,
    )
    totals = counts.sum(1).tolist()
    return list(zip(totals[::2], totals[1::2], strict=True))
