"""What the machine's memory and arithmetic give one thread: the yardsticks for kernels, from the same run.

Kernels that write are held to copying into a small recycled buffer, as the engine uses its buffers;
kernels that only read are held to reading.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["OUT_BYTES", "copy_rate", "make_out", "multiply_rate", "read_rate"]

Array = npt.NDArray[Any]

#: Bytes of the recycled output buffer: one block of the engine.
OUT_BYTES = 4 << 20

#: Rows of a square matrix whose product BLAS makes with one thread, from cache; and how many products are timed.
_ROWS, _PRODUCTS = 64, 200

#: numpy's fastest ways to look at every byte; which one wins depends on its build and the machine.
_READERS: tuple[Callable[[Array], Any], ...] = (
    lambda bytes_: bytes_.view(np.uint32).max(),
    lambda bytes_: bytes_.view(np.uint64).sum(),
    lambda bytes_: np.bitwise_or.reduce(bytes_.view(np.uint64)),
)


def make_out() -> Array:
    """The recycled buffer, [OUT_BYTES] uint8, touched."""
    return np.ones(OUT_BYTES, np.uint8)


def copy_rate(inputs: Sequence[Array], out: Array) -> float:
    """Bytes read plus written per second while all inputs, [n] uint8 each, go into `out` piece by piece."""
    pieces = [array[at : at + out.size] for array in inputs for at in range(0, array.size, out.size)]
    started = time.perf_counter()
    for piece in pieces:
        out[: piece.size] = piece
    return 2 * sum(piece.size for piece in pieces) / (time.perf_counter() - started)


def read_rate(inputs: Sequence[Array]) -> float:
    """Bytes read per second by the fastest reader; inputs are [n] uint8."""
    inputs = [array[: array.size // 8 * 8] for array in inputs]
    total = sum(array.size for array in inputs)
    rates = []
    for reader in _READERS:
        started = time.perf_counter()
        for array in inputs:
            reader(array)
        rates.append(total / (time.perf_counter() - started))
    return max(rates)


def multiply_rate() -> float:
    """Float32 operations per second of matrix products, a multiplication and an addition each: the most there is."""
    matrix = np.ones((_ROWS, _ROWS), np.float32)
    product = np.empty_like(matrix)
    best = float("inf")
    for _ in range(_PRODUCTS):
        started = time.perf_counter()
        np.matmul(matrix, matrix, out=product)
        best = min(best, time.perf_counter() - started)
    return 2 * _ROWS**3 / best
