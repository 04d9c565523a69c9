"""Numbers for the vectors that a tensor is cut into, in numpy; `lines` is (count, length, strided)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .convert import NUMPY_DTYPES, Array

__all__ = ["spread_lines"]


def spread_lines(numbers: Sequence[float] | Array, lines: tuple[int, int, bool], compute: str) -> Array:
    """[count] float64, rounded once to the compute type, to [count * length]: each element its vector's."""
    count, length, strided = lines
    rounded = np.asarray(numbers, np.float64).astype(NUMPY_DTYPES[compute])
    assert rounded.size == count
    return np.tile(rounded, length) if strided else np.repeat(rounded, length)
