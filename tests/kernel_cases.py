"""The inputs that every kernel meets on every backend: lengths, starts, values, dtypes."""

from __future__ import annotations

import os
import zlib
from typing import Any

import numpy as np

from pymerge.kernels.common.canonical import BLOCK, LANES, TILE
from pymerge.kernels.common.convert import NUMPY_DTYPES

DTYPES = tuple(NUMPY_DTYPES)
#: Whether kernels run in an interpreter, in which one of their operations takes as long as a small tensor's
#: merge elsewhere: it meets fewer lengths, and a part of what has many variants (`is_chosen`).
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
#: Whether each variant is compiled when it is first met, a second or two: a larger part of them.
COMPILED = os.environ.get("PYMERGE_TEST_BACKEND") == "triton" and not INTERPRETED
#: Whether CUDA kernels run without a GPU, compiled for the processor: every thread in turn, a part of the cases.
EMULATED = "PYMERGE_EMULATED_CUDA" in os.environ
#: Which part that is: as many turns as one case in that many is run come to all of them.
TURN = int(os.environ.get("PYMERGE_TEST_TURN", "0"))
#: Around every edge that an implementation could get wrong: lanes, blocks, tiles, and odd ones.
LENGTHS = (0, 1, LANES - 1, LANES, LANES + 1, 777, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5, TILE - 1, TILE + 1)
if INTERPRETED:
    LENGTHS = (0, 1, LANES + 1, BLOCK, 3 * BLOCK + 5)
SHORT_LENGTHS = tuple(length for length in LENGTHS if length < TILE // 2)

_SPECIAL = (0.0, -0.0, 1e-45, -1e-45, 6e-8, 1.17e-38, 65504.0, 65520.0, 3.4e38, np.inf, -np.inf, np.nan, 1.0, -1.0)


def make(dtype: str, length: int, models: int, *, special: bool = False, seed: int = 0) -> list[Any]:
    """A base and `models` fine-tunes near it; with `special`, zeros, denormals, infinities and NaN among them."""
    random = np.random.default_rng([seed, length, models])
    base = random.standard_normal(length) * 0.02
    tensors = [base, *(base + random.standard_normal(length) * 0.01 for _ in range(models))]
    if special and length:
        for tensor in tensors:
            places = random.integers(0, length, size=min(length, 4 * len(_SPECIAL)))
            tensor[places] = np.resize(_SPECIAL, places.size)
    with np.errstate(over="ignore"):
        return [tensor.astype(NUMPY_DTYPES[dtype]) for tensor in tensors]


def is_chosen(*case: object, one_in: int = 16) -> bool:
    """Whether to run a case: interpreted one in 32, compiled or emulated one in 8, else all; always the same ones."""
    share = 2 * one_in if INTERPRETED else max(1, one_in // 2) if COMPILED or EMULATED else 1
    return zlib.crc32(repr(case).encode()) % share == TURN % share


def same_answer(left: object, right: object) -> bool:
    """Equal to the sign of a zero, NaN to NaN."""
    return np.array_equal(*(np.asarray(each, dtype=object).astype(str) for each in (left, right)))


def unaligned(array: Any, shift: int = 1) -> Any:
    """The same elements at an address that is `shift` elements off every vector's alignment."""
    room = np.empty(array.size + 64 + shift, array.dtype)
    start = (-room.ctypes.data // array.itemsize) % 64 + shift
    view = room[start : start + array.size]
    view[:] = array
    return view


def guarded(length: int, dtype: Any) -> tuple[Any, Any]:
    """(whole, inner): an output with 16 guard elements on either side."""
    whole = np.full(length + 32, 77, dtype)
    return whole, whole[16 : 16 + length]


def guards_untouched(whole: Any) -> bool:
    """Whether nobody wrote outside of the inner array."""
    seventy_seven = np.full(16, 77, whole.dtype)
    return bool((whole[:16] == seventy_seven).all() and (whole[-16:] == seventy_seven).all())
