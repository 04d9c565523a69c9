"""Stored tensors piece by piece, so that what is held does not depend on how large they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pymerge import _core
from pymerge.checkpoint import Checkpoint, Source, StoredTensor, open_checkpoint
from pymerge.checkpoint.kinds import is_gguf
from pymerge.checkpoint.weights import open_file
from pymerge.config.values import ModelRef
from pymerge.errors import FormatError, ResourceError
from pymerge.execute.tensors import Tensors
from pymerge.kernels.common.convert import NUMPY_DTYPES, Array

__all__ = ["PIECE", "map_threads", "open_model", "read_pieces", "read_whole", "storage"]

#: Elements of a piece. With what is worked out of it, 20 MB a thread at most.
PIECE = 1 << 18

T = TypeVar("T")
R = TypeVar("R")


def open_model(path: str) -> Checkpoint:
    """A model folder, or one weight file as if it were a model; headers only.

    Raises:
        RecipeError: there is no such model.
        FormatError: it is damaged.
    """
    single = Path(path).expanduser().is_file() and not is_gguf(path)
    return (open_file if single else open_checkpoint)(ModelRef(path))


def storage(stored: Source) -> np.dtype[Any]:
    """numpy's type of a tensor's elements: the float that it is, or bare words of the same size (else bytes)."""
    if stored.dtype.mergeable:
        kind: np.dtype[Any] = NUMPY_DTYPES[stored.dtype.name]
        return kind
    return np.dtype({16: np.uint16, 32: np.uint32, 64: np.uint64}.get(stored.dtype.bits, np.uint8))


def read_pieces(stored: Source, elements: int = PIECE) -> Iterator[Array]:
    """The tensor's elements in order, flat arrays of `storage`'s type with that many each, the last one shorter.

    Raises:
        FormatError: the file ends inside the tensor.
        ResourceError: it cannot be read.
    """
    if not isinstance(stored, StoredTensor):
        yield from _read_derived(stored, elements)
        return
    kind = storage(stored)
    left = stored.nbytes
    try:
        with Path(stored.path).open("rb", buffering=0) as file:
            file.seek(stored.offset)
            while left:
                size = min(left, elements * kind.itemsize)
                piece = np.fromfile(file, np.uint8, size)
                if piece.size < size:
                    raise FormatError(f'{stored.path}: ends inside of tensor "{stored.name}"; write or copy it again')
                left -= size
                yield piece.view(kind)
    except OSError as error:
        raise ResourceError(f"{stored.path}: cannot be read: {error.strerror or error}") from None


def _read_derived(source: Source, elements: int) -> Iterator[Array]:
    read = Tensors(lambda path, in_place: _core.MappedFile(path), in_place=False).reader(source)
    kind = storage(source)
    for begin in range(0, source.count, elements):
        piece = np.empty(min(elements, source.count - begin), kind)
        read(begin * kind.itemsize, piece.view(np.uint8))
        yield piece


def read_whole(stored: Source) -> Array:
    """All of a tensor's elements, flat; raises as `read_pieces`."""
    return next(read_pieces(stored, max(1, stored.nbytes)), np.empty(0, storage(stored)))


def map_threads(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """`function` of every item, in order; what has not begun when one of them fails never does."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
