"""Tensors of the base, whatever they are derived from: whole, or some rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pymerge.checkpoint import Source
from pymerge.execute.tensors import open_tensors
from pymerge.kernels.common.convert import NUMPY_DTYPES, Array, decode

__all__ = ["read_all", "read_rows"]


def read_rows(source: Source, rows: Sequence[int]) -> Array:
    """Rows of a matrix, [len(rows), width] float64; nothing else is read."""
    width, kind = source.shape[-1], NUMPY_DTYPES[source.dtype.name]
    read = open_tensors().reader(source)
    found = np.empty((len(rows), width), kind)
    for place, row in enumerate(rows):
        read(row * width * kind.itemsize, found[place].view(np.uint8))
    values: Array = decode(found.reshape(-1), "float64").reshape(found.shape)
    return values


def read_all(source: Source) -> Array:
    """All elements of a tensor, of its shape and type."""
    values = np.empty(source.count, NUMPY_DTYPES[source.dtype.name])
    open_tensors().reader(source)(0, values.view(np.uint8))
    whole: Array = values.reshape(source.shape)
    return whole
