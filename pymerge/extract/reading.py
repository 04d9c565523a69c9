"""Elements of both models: their difference as one matrix, or only whether there is one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pymerge.checkpoint import Source
from pymerge.errors import NonFiniteError
from pymerge.extract.decompose import Matrix
from pymerge.kernels.common.convert import decode, encode
from pymerge.verify.reading import read_pieces

__all__ = ["differ", "read_delta", "read_stored"]


def read_delta(tuned: Source, base: Source) -> Matrix | None:
    """D = W - B in float32, [rows, columns]; None if all of it is 0.

    Raises:
        NonFiniteError: an element of it is infinite or NaN.
        FormatError, ResourceError: a file cannot be read.
    """
    delta = np.empty(tuned.count, np.float32)
    at, any_differs = 0, False
    for mine, theirs in zip(read_pieces(tuned), read_pieces(base), strict=True):
        part = delta[at : at + mine.size]
        with np.errstate(over="ignore", invalid="ignore"):
            np.subtract(decode(mine, "float32"), decode(theirs, "float32"), out=part)
        finite = np.isfinite(part)
        if not finite.all():
            place = at + int(np.argmin(finite))
            raise NonFiniteError(
                f'tensor "{tuned.name}": the difference of model and base is not finite at element {place:,}; one of '
                "them has an infinity or NaN there: pymerge verify MODEL BASE counts those"
            )
        any_differs = any_differs or bool(part.any())
        at += mine.size
    return delta.reshape(tuned.shape) if any_differs else None


def differ(tuned: Source, base: Source) -> bool:
    """Whether two tensors of one shape have different elements; a NaN differs from none."""
    if tuned.shape != base.shape:
        return True
    for mine, theirs in zip(read_pieces(tuned), read_pieces(base), strict=True):
        if mine.dtype != theirs.dtype:
            mine, theirs = decode(mine, "float64"), decode(theirs, "float64")
        if not np.array_equal(mine.view(np.uint8), theirs.view(np.uint8)) and _unequal(mine, theirs):
            return True
    return False


def read_stored(source: Source, dtype: str) -> Iterator[Matrix]:
    """A tensor's elements piece by piece, as they are stored in an adapter."""
    for piece in read_pieces(source):
        yield piece if source.dtype.name == dtype else encode(decode(piece, "float32"), dtype)


def _unequal(mine: Matrix, theirs: Matrix) -> bool:
    # -0 and 0 are no difference, as in matrices.
    return bool(np.any((mine != theirs) & ~((mine != mine) & (theirs != theirs))))
