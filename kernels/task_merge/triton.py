"""task_merge in Triton: masks, sign election and the sum in one launch, whatever the number of models; see spec.py.

Where masks are drawn a program walks 128-element slabs of its canonical blocks, so that a Philox counter
is worked out once for the eight elements that it draws for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

from ..common.convert import NUMPY_DTYPES
from ..common.triton.elements import divide, keys_of, load, number, store
from ..common.triton.launch import cdiv, launch, pack_numbers, real_of, shape_of
from ..common.triton.ranks import rank_tables
from ..common.triton.rules import RULE_NUMBERS, is_drawn, kinds_of, rule_keeps, rule_numbers, rule_words, spread_of

__all__ = ["run"]

#: Of the launch's numbers: the scale; then per model coefficient, weight, vote, alone and its rule's.
_FIRST = tl.constexpr(1)
_STEP = tl.constexpr(4 + RULE_NUMBERS)
_WEIGHT, _VOTE, _ALONE, _RULE = tl.constexpr(1), tl.constexpr(2), tl.constexpr(3), tl.constexpr(4)
_SLABS, _SLAB = tl.constexpr(8), tl.constexpr(128)
#: Models up to which the factors of all 2^n sets that may take part are worked out beforehand: choosing one takes
#: 2^n - 1 instructions an element, a division 12.
_TABLED = 3


@triton.jit
def _keep(
    delta,
    table,
    numbers,
    at,
    words,
    apart,
    start,
    places,
    inside,
    slab,
    KIND: tl.constexpr,
):
    """K of one model at some elements: D, or 0 where its rule drops it."""
    if KIND == "all":
        return delta
    else:
        keeps = rule_keeps(delta, table, numbers, at, words, slab, apart, start, places, inside, KIND)
        return tl.where(keeps, delta, 0)


@triton.jit
def _sum(kept, numbers, MODELS: tl.constexpr):
    real: tl.constexpr = kept[0].dtype
    total = kept[0] * number(numbers, _FIRST, real)
    for i in tl.static_range(1, MODELS):
        total = total + kept[i] * number(numbers, _FIRST + i * _STEP, real)
    return total


@triton.jit
def _who_agrees(kept, numbers, CONSENSUS: tl.constexpr, VOTES: tl.constexpr, MODELS: tl.constexpr):
    """Which models take part at each element."""
    real: tl.constexpr = kept[0].dtype
    agreeing = ()
    if CONSENSUS == "overlap":
        for i in tl.static_range(MODELS):
            agreeing = agreeing + (kept[i] != 0,)
    else:
        ballots = ()
        total = tl.zeros_like(kept[0])
        for i in tl.static_range(MODELS):
            ballot = number(numbers, _FIRST + i * _STEP + (_VOTE if VOTES else 0), real) * kept[i]
            counted = ballot
            if CONSENSUS == "count":
                counted = (ballot > 0).to(real) - (ballot < 0).to(real)
            total = counted if i == 0 else total + counted
            ballots = ballots + (ballot,)
        plus = total >= 0
        for i in tl.static_range(MODELS):
            # Where a vote is NaN it is on no side, and takes part.
            agreeing = agreeing + (~(tl.where(plus, ballots[i], -ballots[i]) <= 0),)
    return agreeing


@triton.jit
def _look_up(agreeing, numbers, MODELS: tl.constexpr, REAL: tl.constexpr):
    """The factor of those that take part, of `_factors`."""
    factors = ()
    for taking in tl.static_range(1 << MODELS):
        factors = factors + (number(numbers, _FIRST + MODELS * _STEP + taking, REAL),)
    # One model after the other halves what it may be.
    for i in tl.static_range(MODELS):
        left = ()
        for j in tl.static_range(1 << (MODELS - 1 - i)):
            left = left + (tl.where(agreeing[i], factors[2 * j + 1], factors[2 * j]),)
        factors = left
    return factors[0]


@triton.jit
def _work_out(
    agreeing,
    numbers,
    NORMALIZE: tl.constexpr,
    ALONE: tl.constexpr,
    MODELS: tl.constexpr,
    REAL: tl.constexpr,
):
    """The factor of those that take part."""
    divisor = tl.zeros(agreeing[0].shape, REAL)
    single = tl.zeros(agreeing[0].shape, REAL)
    taking = tl.zeros(agreeing[0].shape, tl.int32)
    for i in tl.static_range(MODELS):
        if NORMALIZE:
            divisor = divisor + tl.where(agreeing[i], number(numbers, _FIRST + i * _STEP + _WEIGHT, REAL), 0.0)
        if ALONE:
            taking += agreeing[i].to(tl.int32)
            single = single + tl.where(agreeing[i], number(numbers, _FIRST + i * _STEP + _ALONE, REAL), 0.0)
    factor = tl.zeros(agreeing[0].shape, REAL) + number(numbers, 0, REAL)
    if NORMALIZE:
        factor = divide(factor, tl.where(divisor == 0, 1.0, divisor))
    if ALONE:
        factor = tl.where(taking == 1, single, factor)
    return factor


@triton.jit
def _elect(
    kept,
    numbers,
    CONSENSUS: tl.constexpr,
    NORMALIZE: tl.constexpr,
    VOTES: tl.constexpr,
    ALONE: tl.constexpr,
    PICK: tl.constexpr,
    TABLED: tl.constexpr,
    MODELS: tl.constexpr,
):
    real: tl.constexpr = kept[0].dtype
    agreeing = _who_agrees(kept, numbers, CONSENSUS, VOTES, MODELS)
    merged = tl.zeros_like(kept[0])
    for i in tl.static_range(MODELS):
        part = number(numbers, _FIRST + i * _STEP, real) * kept[i]
        if PICK:
            larger = agreeing[i] & (keys_of(part) > keys_of(merged))
            merged = tl.where(larger, 0.0 + part, merged)
        else:
            merged = merged + tl.where(agreeing[i], part, 0.0)
    if TABLED:
        return merged * _look_up(agreeing, numbers, MODELS, real)
    elif PICK or not (NORMALIZE or ALONE):
        return merged * number(numbers, 0, real)
    else:
        return merged * _work_out(agreeing, numbers, NORMALIZE, ALONE, MODELS, real)


@triton.jit
def _merge(
    out,
    base,
    tensors,
    tables,
    numbers,
    count,
    KINDS: tl.constexpr,
    DRAWN: tl.constexpr,
    SPREAD: tl.constexpr,
    CONSENSUS: tl.constexpr,
    NORMALIZE: tl.constexpr,
    VOTES: tl.constexpr,
    ALONE: tl.constexpr,
    PICK: tl.constexpr,
    TABLED: tl.constexpr,
    MODELS: tl.constexpr,
    WIDTH: tl.constexpr,
    REAL: tl.constexpr,
):
    slabs: tl.constexpr = _SLABS if DRAWN else 1
    start = tl.program_id(0).to(tl.int64) * (WIDTH * slabs)
    element = tl.arange(0, WIDTH)
    words = ()
    for i in tl.static_range(MODELS):
        words = words + (rule_words(start // 8 + element, numbers, _FIRST + i * _STEP + _RULE, KINDS[i]),)
    # Not unrolled: eight slabs at once take twice the registers, and eight times as long to compile.
    for slab in range(slabs):
        places = element // _SLAB * (_SLAB * slabs) + element % _SLAB + slab * _SLAB
        inside = start + places < count
        origin = load(base, start + places, inside, REAL)
        apart = origin
        if SPREAD:
            apart = spread_of(tensors, start + places, inside, MODELS, REAL)
        kept = ()
        for i in tl.static_range(MODELS):
            delta = load(tensors[i], start + places, inside, REAL) - origin
            at = _FIRST + i * _STEP + _RULE
            kept = kept + (
                _keep(delta, tables[i], numbers, at, words[i], apart, start, places, inside, slab, KINDS[i]),
            )
        if CONSENSUS == "none":
            merged = _sum(kept, numbers, MODELS)
        else:
            merged = _elect(kept, numbers, CONSENSUS, NORMALIZE, VOTES, ALONE, PICK, TABLED, MODELS)
        store(out, start + places, origin + merged, inside)


def _factors(
    models: int, weights: Sequence[float], normalize: bool, scale: float, alone: Sequence[float], compute: str
) -> list[float]:
    """[2^models]: by which the sum is multiplied where those models take part whose bits are set in the index."""
    real = NUMPY_DTYPES[compute].type
    factors = []
    for taking in range(1 << models):
        members = [i for i in range(models) if taking >> i & 1]
        with np.errstate(all="ignore"):
            factor = real(scale)
            if normalize:
                divisor = sum((real(weights[i]) for i in members), real(0))
                factor = factor / (divisor if divisor != 0 else real(1))
            if alone and len(members) == 1:
                factor = real(0) + real(alone[members[0]])
        factors.append(float(factor))
    return factors


def run(
    tensors: Sequence[torch.Tensor],
    base: torch.Tensor,
    rules: Sequence[tuple[Any, ...]],
    coefficients: Sequence[float],
    consensus: str,
    weights: Sequence[float],
    normalize: bool,
    scale: float,
    votes: Sequence[float],
    alone: Sequence[float],
    pick: bool,
    compute: str,
    out: torch.Tensor,
) -> None:
    """The contract; writes `out`."""
    models = len(tensors)
    kinds = kinds_of(rules)
    drawn = any(map(is_drawn, kinds))
    tabled = models <= _TABLED and consensus != "none" and not pick and (normalize or bool(alone))
    shape = shape_of("drawn" if drawn else "combine", out.numel(), models)
    numbers: list[int | float] = [float(scale)]
    for i, rule in enumerate(rules):
        given = [float(column[i]) if column else 0.0 for column in (coefficients, weights, votes, alone)]
        numbers += [*given, *rule_numbers(rule)]
    if tabled:
        numbers += _factors(models, weights, normalize, scale, alone, compute)
    packed = pack_numbers(out.device, numbers)
    launch(
        _merge,
        cdiv(out.numel(), shape.width * (8 if drawn else 1)),
        out,
        base,
        tuple(tensors),
        rank_tables(rules, tensors, base, compute, packed),
        packed,
        out.numel(),
        KINDS=kinds,
        DRAWN=drawn,
        SPREAD="spread" in kinds,
        CONSENSUS=consensus,
        NORMALIZE=normalize,
        VOTES=bool(votes),
        ALONE=bool(alone),
        PICK=pick,
        TABLED=tabled,
        MODELS=models,
        WIDTH=shape.width,
        REAL=real_of(compute),
        warps=shape.warps,
    )
