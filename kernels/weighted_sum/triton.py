"""weighted_sum in Triton: one launch whatever the number of tensors; see spec.py."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from ..common.triton.elements import load, load_delta, number, store
from ..common.triton.launch import cdiv, launch, pack_numbers, real_of, shape_of
from ..common.triton.lines import line_numbers, line_of

__all__ = ["run", "run_lines"]


@triton.jit
def _sum(out, tensors, numbers, count, MODELS: tl.constexpr, WIDTH: tl.constexpr, REAL: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * WIDTH + tl.arange(0, WIDTH)
    inside = offsets < count
    total = number(numbers, 0, REAL) * load(tensors[0], offsets, inside, REAL)
    for i in tl.static_range(1, MODELS):
        total = total + number(numbers, i, REAL) * load(tensors[i], offsets, inside, REAL)
    store(out, offsets, total, inside)


def run(
    tensors: Sequence[torch.Tensor], base: None, coefficients: Sequence[float], compute: str, out: torch.Tensor
) -> None:
    """The contract; writes `out`."""
    shape = shape_of("combine", out.numel(), len(tensors))
    numbers = pack_numbers(out.device, map(float, coefficients))
    launch(
        _sum,
        cdiv(out.numel(), shape.width),
        out,
        tuple(tensors),
        numbers,
        out.numel(),
        MODELS=len(tensors),
        WIDTH=shape.width,
        REAL=real_of(compute),
        warps=shape.warps,
    )


@triton.jit
def _sum_lines(
    out,
    base,
    tensors,
    factors,
    count,
    lines,
    length,
    STRIDED: tl.constexpr,
    HAS_BASE: tl.constexpr,
    MODELS: tl.constexpr,
    WIDTH: tl.constexpr,
    REAL: tl.constexpr,
):
    start = tl.program_id(0).to(tl.int64) * WIDTH
    offsets = start + tl.arange(0, WIDTH)
    inside = offsets < count
    line = line_of(start, lines, length, STRIDED, WIDTH)
    origin = tl.zeros((WIDTH,), REAL)
    if HAS_BASE:
        origin = load(base, offsets, inside, REAL)
    total = tl.zeros((WIDTH,), REAL)
    for i in tl.static_range(MODELS):
        factor = tl.load(factors + i * lines + line, mask=inside, other=0)
        part = factor * load_delta(tensors[i], origin, offsets, inside, HAS_BASE, REAL)
        if i == 0:
            total = part
        else:
            total = total + part
    if HAS_BASE:
        total = origin + total
    store(out, offsets, total, inside)


def run_lines(
    tensors: Sequence[torch.Tensor],
    base: torch.Tensor | None,
    coefficients: Sequence[float],
    lines: tuple[int, int, bool],
    compute: str,
    out: torch.Tensor,
) -> None:
    """The contract per line; writes `out`."""
    shape = shape_of("combine", out.numel(), len(tensors))
    number_of_lines, length, strided = lines
    launch(
        _sum_lines,
        cdiv(out.numel(), shape.width),
        out,
        out if base is None else base,
        tuple(tensors),
        line_numbers(coefficients, compute, out.device),
        out.numel(),
        number_of_lines,
        length,
        STRIDED=strided,
        HAS_BASE=base is not None,
        MODELS=len(tensors),
        WIDTH=shape.width,
        REAL=real_of(compute),
        warps=shape.warps,
    )
