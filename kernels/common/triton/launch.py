"""How kernels are launched: their numbers, their grids, and the shapes of their programs."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

__all__ = ["INTERPRETED", "Shape", "cdiv", "launch", "pack_numbers", "real_of", "shape_of", "to_bytes"]

#: Whether kernels run in Triton's interpreter, on CPU tensors, slowly, for whoever debugs them: where
#: TRITON_INTERPRET=1 when they are decorated.
INTERPRETED: bool = triton.knobs.runtime.interpret


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a program: elements that it works on at a time (a power of two), and its warps of 32 threads."""

    width: int
    warps: int


#: Kernel -> (models at most, shape), the first row that fits. 1,024 elements on four warps are eight for each
#: thread: 16 bytes of bfloat16, one load. What more models hold in registers is halved rather than spilled.
#: Timed on an H100 at half a billion elements of bfloat16, in shares of a copy. combine, ties of 2 and 3: 1.03 and
#: 0.95; 512 on 4 warps 0.93 and 0.86, 2048 on 8 0.98 and 0.92. drawn, DARE with ties of 2 and 3: 512 on 4 0.85 and
#: 0.63, 1024 on 4 less by a tenth (registers). lanes, gram of 2 and 3: 256 on 2 0.98 and 0.97, 1024 on 4 0.70 and 0.69.
#: scan of 2: 512 on 4 0.50, 1024 on 4 0.46, 2048 on 8 0.43. Registers and spills are in tests/gates/triton.json.
_SHAPES: dict[str, tuple[tuple[int, Shape], ...]] = {
    "combine": ((8, Shape(1024, 4)), (16, Shape(512, 4)), (1 << 30, Shape(256, 4))),
    "drawn": ((8, Shape(512, 4)), (16, Shape(256, 4)), (1 << 30, Shape(128, 4))),
    "lanes": ((3, Shape(256, 2)), (4, Shape(512, 4)), (1 << 30, Shape(128, 1))),
    "masked": ((4, Shape(256, 4)), (1 << 30, Shape(128, 4))),
    "rows": ((1 << 30, Shape(256, 4)),),
    "scan": ((1 << 30, Shape(512, 4)),),
    "counts": ((1 << 30, Shape(2048, 8)),),
}
#: The interpreter's cost is by program and operation, hardly by element, up to this many.
_INTERPRETED = 1 << 15


def shape_of(kind: str, count: int, models: int = 1) -> Shape:
    """The shape of programs of a kind of kernel on `count` elements of this many models.

    Kinds: "combine" (pointwise, one output), "lanes" (canonical sums), "masked" (those
    before and after a mask, which holds a block's random words), "rows" (several
    canonical sums of few tensors, one after the other), "scan" (keys, one tensor at a time), "drawn" (combines
    that hold random words), "counts" (histograms, made in a program before they are added).
    """
    if INTERPRETED:
        return Shape(min(_INTERPRETED, max(128, 1 << max(0, count - 1).bit_length())), 1)
    return next(shape for most, shape in _SHAPES[kind] if models <= most)


def cdiv(count: int, size: int) -> int:
    """Programs of `size` elements that cover `count`."""
    return -(-count // size)


def real_of(compute: str) -> tl.dtype:
    """Triton's type for the compute type."""
    return tl.float64 if compute == "float64" else tl.float32


def pack_numbers(device: torch.device, values: Iterable[int | float]) -> torch.Tensor:
    """Integers (64 bits, wrapped) and float64 numbers in order, as one int64 tensor that a kernel reads.

    Launch arguments would be specialized on, and so compiled for, each value; and Python's floats are
    passed as float32.
    """
    words = [
        struct.unpack("<q", struct.pack("<d", value))[0]
        if isinstance(value, float)
        else ((value + (1 << 63)) & ((1 << 64) - 1)) - (1 << 63)
        for value in values
    ]
    packed = torch.tensor(words or [0], dtype=torch.int64)
    return packed if device.type == "cpu" else packed.pin_memory().to(device, non_blocking=True)


def to_bytes(tensor: torch.Tensor) -> bytes:
    """The bytes of a tensor's elements in order, on the host."""
    content: bytes = tensor.contiguous().cpu().numpy().tobytes()
    return content


def launch(kernel: Any, programs: int | tuple[int, int], *arguments: Any, warps: int = 4, **constants: Any) -> None:
    """Run a kernel's `programs` (or a grid of two dimensions) on the current stream of the first argument's device.

    Never contracted: a product and a sum are rounded apart, as everywhere else.
    """
    grid = programs if isinstance(programs, tuple) else (programs,)
    if 0 in grid:
        return
    options = {"num_warps": warps, "enable_fp_fusion": False}
    if INTERPRETED:
        with np.errstate(all="ignore"):
            kernel[grid](*arguments, **constants, **options)
        return
    with torch.cuda.device(arguments[0].get_device()):
        kernel[grid](*arguments, **constants, **options)
