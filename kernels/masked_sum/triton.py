"""masked_sum in Triton: norms before and after masks, all models in one launch; see spec.py.

A canonical block's lanes lie in a row of a tensor, as in gram. Random words are worked out once for a block, since
its elements are added in order, and a word is of elements that are far apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from ..common.canonical import BLOCK, LANES
from ..common.triton.elements import keys_of, load, load_delta
from ..common.triton.launch import INTERPRETED, cdiv, launch, pack_numbers, real_of, shape_of
from ..common.triton.ranks import rank_tables
from ..common.triton.rules import RULE_NUMBERS, kinds_of, rule_keeps, rule_numbers, rule_words, spread_of
from ..common.triton.sums import add_lanes, add_steps, blocks_of, tile_sums

__all__ = ["run"]

_LANES = tl.constexpr(LANES)
_BLOCK = tl.constexpr(BLOCK)
_STEP = tl.constexpr(RULE_NUMBERS)
#: A slab is 128 elements: as many as a block has counters. It is worked on in 1 << this steps of 32 at a time.
_SLAB = tl.constexpr(128)
_LEVELS = 2 if INTERPRETED else 0


@triton.jit
def _terms(delta, NORM: tl.constexpr):
    if NORM == "linf":
        return keys_of(delta)
    elif NORM == "l2":
        magnitude = tl.abs(delta).to(tl.float64)
        return magnitude * magnitude
    else:
        return tl.abs(delta).to(tl.float64)


@triton.jit
def _add_terms(lanes, terms, NORM: tl.constexpr, BLOCKS: tl.constexpr, LEVELS: tl.constexpr):
    """Onto the lanes; of keys, which are integers, the largest."""
    if NORM == "linf":
        return tl.maximum(lanes, tl.max(terms, 1))
    else:
        return add_steps(lanes, terms, BLOCKS, LEVELS)


@triton.jit
def _store_blocks(at, lanes, inside, NORM: tl.constexpr, BLOCKS: tl.constexpr, REAL: tl.constexpr):
    if NORM == "linf":
        tl.store(at, tl.max(lanes, 1).to(REAL, bitcast=True).to(tl.float64), mask=inside)
    else:
        tl.store(at, add_lanes(lanes, BLOCKS), mask=inside)


@triton.jit
def _totals(
    blocks,
    counts,
    tensors,
    base,
    tables,
    numbers,
    count,
    room,
    KINDS: tl.constexpr,
    SPREAD: tl.constexpr,
    NORM: tl.constexpr,
    HAS_BASE: tl.constexpr,
    MODELS: tl.constexpr,
    BLOCKS: tl.constexpr,
    LEVELS: tl.constexpr,
    REAL: tl.constexpr,
    LANE: tl.constexpr,
):
    wide: tl.constexpr = _LANES << LEVELS
    parts: tl.constexpr = _SLAB // wide
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    start = tl.program_id(0).to(tl.int64) * (BLOCKS * _BLOCK)
    ahead = (tl.arange(0, 1 << LEVELS) * _LANES)[None, :, None] + tl.arange(0, _LANES)[None, None, :]
    first = (tl.arange(0, BLOCKS) * _BLOCK)[:, None, None] + ahead
    words = ()
    for part in tl.static_range(parts):
        counters = block[:, None, None] * _SLAB + (ahead + part * wide)
        for i in tl.static_range(MODELS):
            words = words + (rule_words(counters, numbers, i * _STEP, KINDS[i]),)
    whole = ()
    kept = ()
    held = ()
    for _ in tl.static_range(MODELS):
        whole = whole + (tl.zeros((BLOCKS, _LANES), LANE),)
        kept = kept + (tl.zeros((BLOCKS, _LANES), LANE),)
        held = held + (tl.zeros((BLOCKS, 1 << LEVELS, _LANES), tl.int32),)
    for slab in range(_BLOCK // _SLAB):
        for part in tl.static_range(parts):
            places = first + (slab * _SLAB + part * wide)
            inside = start + places < count
            origin = 0.0
            if HAS_BASE:
                origin = load(base, start + places, inside, REAL)
            apart = 0
            if SPREAD:
                apart = spread_of(tensors, start + places, inside, MODELS, REAL)
            wholes = ()
            kepts = ()
            helds = ()
            for i in tl.static_range(MODELS):
                delta = load_delta(tensors[i], origin, start + places, inside, HAS_BASE, REAL)
                drawn = words[part * MODELS + i]
                keeps = inside & rule_keeps(
                    delta, tables[i], numbers, i * _STEP, drawn, slab, apart, start, places, inside, KINDS[i]
                )
                terms = _terms(delta, NORM)
                wholes = wholes + (_add_terms(whole[i], terms, NORM, BLOCKS, LEVELS),)
                kepts = kepts + (_add_terms(kept[i], tl.where(keeps, terms, 0), NORM, BLOCKS, LEVELS),)
                helds = helds + (held[i] + keeps.to(tl.int32),)
            whole = wholes
            kept = kepts
            held = helds
    for i in tl.static_range(MODELS):
        at = blocks + i * room + block
        _store_blocks(at, whole[i], block < room, NORM, BLOCKS, REAL)
        _store_blocks(at + MODELS * room, kept[i], block < room, NORM, BLOCKS, REAL)
        tl.store(counts + i * tl.num_programs(0) + tl.program_id(0), tl.sum(held[i]))


def run(
    tensors: Sequence[torch.Tensor],
    base: torch.Tensor | None,
    rules: Sequence[tuple[Any, ...]],
    norm: str,
    compute: str,
) -> list[tuple[float, float, int]]:
    """The contract's partials: (total, kept, count) for each tensor, tile by tile; counts are in the first tile."""
    models = len(tensors)
    kinds = kinds_of(rules)
    count = tensors[0].numel()
    room = blocks_of(count)
    device = tensors[0].device
    # Zeros: the last tile's blocks past the end are not launched.
    blocks = torch.zeros(2 * models, room, dtype=torch.float64, device=device)
    shape = shape_of("masked", cdiv(count, BLOCK) * LANES, models)
    height = shape.width // LANES
    programs = cdiv(cdiv(count, BLOCK), height)
    counts = torch.empty(models, programs, dtype=torch.int32, device=device)
    packed = pack_numbers(device, [number for rule in rules for number in rule_numbers(rule)])
    keys = tl.int64 if compute == "float64" else tl.int32
    launch(
        _totals,
        programs,
        blocks,
        counts,
        tuple(tensors),
        blocks if base is None else base,
        rank_tables(rules, tensors, base, compute, packed),
        packed,
        count,
        room,
        KINDS=kinds,
        SPREAD="spread" in kinds,
        NORM=norm,
        HAS_BASE=base is not None,
        MODELS=models,
        BLOCKS=height,
        LEVELS=_LEVELS,
        REAL=real_of(compute),
        LANE=keys if norm == "linf" else tl.float64,
        warps=shape.warps,
    )
    tiles = [blocks.amax(1).tolist()] if norm == "linf" else tile_sums(blocks)
    held = counts.sum(1).tolist()
    return [
        (tile[i], tile[models + i], 0 if later else held[i]) for later, tile in enumerate(tiles) for i in range(models)
    ]
