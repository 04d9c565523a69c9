"""What is on disk, as frozen values: stored tensors, checkpoints, architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymerge.config.values import ModelRef
from pymerge.dtypes import DType

__all__ = ["Checkpoint", "StoredTensor"]


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
        count = 1
        for dim in self.shape:
            count *= dim
        return count

    @property
    def origin(self) -> DType:
        """Its own type; see `pymerge.checkpoint.sources.Source`."""
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
        tensors: by name, as stored.
        config: config.json, parsed.
        files: weight files in the order of the index, with size in bytes and mtime_ns.
    """

    ref: ModelRef
    folder: Path
    tensors: Mapping[str, StoredTensor]
    config: Mapping[str, Any]
    files: tuple[tuple[Path, int, int], ...]
