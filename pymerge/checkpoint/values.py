"""What is on disk, as frozen values: stored tensors, checkpoints, architecture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pymerge.checkpoint.remote import Remote
from pymerge.config.values import ModelRef
from pymerge.dtypes import DType

__all__ = ["Checkpoint", "Source", "StoredTensor"]


class Source(Protocol):
    """A tensor that is read.

    Attributes:
        name: as it is stored, for messages.
        dtype: of the elements as kernels see them.
        origin: the type that an output takes which is given none: that of what is stored.
        shape, count: of the elements, row-major.
        nbytes: of the elements.
        parts: the sources that it is derived from; none if it is stored.
        settings: what it depends on besides them, as values that print alike where they are alike.
    """

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> DType: ...
    @property
    def origin(self) -> DType: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def count(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def parts(self) -> tuple[Source, ...]: ...
    @property
    def settings(self) -> tuple[object, ...]: ...


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor inside a weight file.

    Attributes:
        shape: row-major.
        path: the file; `offset` is absolute in it, in bytes; `nbytes` long.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    path: str
    offset: int
    nbytes: int

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def origin(self) -> DType:
        """Its own type; see `Source`."""
        return self.dtype

    @property
    def parts(self) -> tuple[()]:
        """None: it is stored."""
        return ()

    @property
    def settings(self) -> tuple[object, ...]:
        """Its name; folders may be somewhere else by now."""
        return (self.name,)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model folder: its tensors (headers only), its config.json, its files.

    Attributes:
        folder: the local folder (absolute).
        tensors: by name, as stored; those that an adapter or a format changes are derived.
        config: config.json, parsed.
        files: weight files in the order of the index, with size in bytes and mtime_ns (0 while they are not here).
        remote: those of them that come from a hub.
        notes: what the user should know about how it was found.
    """

    ref: ModelRef
    folder: Path
    tensors: Mapping[str, Source]
    config: Mapping[str, Any]
    files: tuple[tuple[Path, int, int], ...]
    remote: Remote = field(default_factory=dict)
    notes: tuple[str, ...] = ()
