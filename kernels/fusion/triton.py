"""fusion in Triton; see spec.py."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from ..common.triton.elements import keys_of, load, number, store
from ..common.triton.launch import cdiv, launch, pack_numbers, real_of, shape_of
from ..common.triton.lines import line_numbers, line_of

__all__ = ["run"]


@triton.jit
def _fuse(
    out,
    base,
    tensor,
    factors,
    numbers,
    count,
    lines,
    length,
    STRIDED: tl.constexpr,
    WIDTH: tl.constexpr,
    REAL: tl.constexpr,
):
    start = tl.program_id(0).to(tl.int64) * WIDTH
    offsets = start + tl.arange(0, WIDTH)
    inside = offsets < count
    origin = load(base, offsets, inside, REAL)
    delta = load(tensor, offsets, inside, REAL) - origin
    factor = tl.load(factors + line_of(start, lines, length, STRIDED, WIDTH), mask=inside, other=0)
    reached = keys_of(delta * factor) >= keys_of(tl.zeros_like(delta) + number(numbers, 0, REAL))
    store(out, offsets, origin + tl.where(reached, delta, 0), inside)


def run(
    tensors: Sequence[torch.Tensor],
    base: torch.Tensor,
    factors: Sequence[float],
    lines: tuple[int, int, bool],
    threshold: float,
    compute: str,
    out: torch.Tensor,
) -> None:
    """The contract; writes `out`."""
    shape = shape_of("combine", out.numel())
    number_of_lines, length, strided = lines
    launch(
        _fuse,
        cdiv(out.numel(), shape.width),
        out,
        base,
        tensors[0],
        line_numbers(factors, compute, out.device),
        pack_numbers(out.device, [threshold]),
        out.numel(),
        number_of_lines,
        length,
        STRIDED=strided,
        WIDTH=shape.width,
        REAL=real_of(compute),
        warps=shape.warps,
    )
