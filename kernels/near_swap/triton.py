"""near_swap in Triton; see spec.py."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from ..common.triton.elements import divide, load, number, store
from ..common.triton.launch import cdiv, launch, pack_numbers, real_of, shape_of
from .spec import FLOOR

__all__ = ["run"]


@triton.jit
def _swap(out, base, tensor, numbers, count, WIDTH: tl.constexpr, REAL: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * WIDTH + tl.arange(0, WIDTH)
    inside = offsets < count
    value = load(tensor, offsets, inside, REAL)
    origin = load(base, offsets, inside, REAL)
    floor = number(numbers, 1, REAL)
    delta = value - origin
    distance = tl.abs(delta)
    share = divide(tl.zeros_like(delta) + number(numbers, 0, REAL), tl.where(distance < floor, floor, distance))
    store(out, offsets, tl.where(share >= 1, value, origin + share * delta), inside)


def run(tensors: Sequence[torch.Tensor], base: torch.Tensor, t: float, compute: str, out: torch.Tensor) -> None:
    """The contract; writes `out`."""
    shape = shape_of("combine", out.numel())
    launch(
        _swap,
        cdiv(out.numel(), shape.width),
        out,
        base,
        tensors[0],
        pack_numbers(out.device, [float(t), FLOOR]),
        out.numel(),
        WIDTH=shape.width,
        REAL=real_of(compute),
        warps=shape.warps,
    )
