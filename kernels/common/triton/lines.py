"""Numbers for the vectors that a tensor is cut into: lines.py's contract, in Triton."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import triton
import triton.language as tl

__all__ = ["line_numbers", "line_of"]


@triton.jit
def line_of(start, count, length, STRIDED: tl.constexpr, WIDTH: tl.constexpr):
    """The vector (int64) of each of the WIDTH elements from the flat index `start` (int64) on.

    Divides 64 bits once a program: an element's own division is of 32.
    """
    if STRIDED:
        return ((start % count).to(tl.int32) + tl.arange(0, WIDTH)) % count
    else:
        return start // length + ((start % length).to(tl.int32) + tl.arange(0, WIDTH)) // length


def line_numbers(numbers: Sequence[float], compute: str, device: torch.device) -> torch.Tensor:
    """Float64 numbers rounded once to the compute type, as a tensor on the device."""
    wide = torch.from_numpy(np.asarray(numbers, np.float64).reshape(-1).copy())
    return wide.to(torch.float64 if compute == "float64" else torch.float32).to(device)
