"""The file of an adapter's tensors, written as they come: the ranks of factors are known late, so the header is last.

Room for the header is left in front, as much as it may take; what it does not need is spaces, as the format allows.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from pymerge.checkpoint.adapters import PREFIX, WEIGHTS
from pymerge.dtypes import DType
from pymerge.errors import ResourceError
from pymerge.extract.decompose import Matrix
from pymerge.schedule.layout import METADATA

__all__ = ["PARTIAL", "AdapterWriter"]

PARTIAL = f".{WEIGHTS[0]}.partial"
#: What an entry takes besides its name: type, two dims, two offsets, punctuation.
_ENTRY = 160


class AdapterWriter:
    """A context in which tensors are added to a folder's weight file; until `finish` it has another name."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        """`names`: of all tensors that may come, as long as they may be."""
        self._path = folder / PARTIAL
        self._target = folder / WEIGHTS[0]
        room = sum(len(json.dumps(PREFIX + name)) + _ENTRY for name in names) + _ENTRY
        self._room = -(-room // 8) * 8
        self._at = 0
        self._entries: dict[str, dict[str, Any]] = {}
        self._file: FileIO | None = None

    def __enter__(self) -> AdapterWriter:
        """Make the file, or take over what a killed run left.

        Raises:
            ResourceError: it cannot be made, or another run is writing it.
        """
        try:
            file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        except OSError as error:
            raise self._failed(error) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another run may have finished since it was opened: then it is that one's result.
            if os.fstat(file.fileno()).st_ino != os.stat(self._path).st_ino:
                raise FileNotFoundError
            file.truncate(0)
            file.seek(8 + self._room)
        except (BlockingIOError, FileNotFoundError):
            file.close()
            raise ResourceError(
                f"{self._path}: another run is writing it; wait for it, or name another folder"
            ) from None
        except OSError as error:
            file.close()
            raise self._failed(error) from error
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what is not finished."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            self._file.close()
            self._file = None

    def add(self, name: str, dtype: DType, shape: tuple[int, ...], pieces: Iterable[Matrix]) -> None:
        """Write one tensor; its pieces are arrays of `dtype`, in order.

        Raises:
            ResourceError: the disk is full, or refuses.
        """
        assert self._file is not None
        begin = self._at
        for piece in pieces:
            flat = piece.reshape(-1).view("u1")
            self._write(flat.data)
            self._at += flat.size
        self._entries[name] = {"dtype": dtype.code, "shape": list(shape), "data_offsets": [begin, self._at]}

    def rename(self, old: str, new: str) -> None:
        """Give a tensor that was added another name."""
        self._entries[new] = self._entries.pop(old)

    def __contains__(self, name: str) -> bool:
        """Whether a tensor was added."""
        return name in self._entries

    def finish(self) -> int:
        """Write the header, sync, and give the file its name; returns its size.

        Raises:
            ResourceError: the disk is full, or refuses.
        """
        assert self._file is not None
        header = {"__metadata__": dict(METADATA), **{PREFIX + name: entry for name, entry in self._entries.items()}}
        text = json.dumps(header, separators=(",", ":")).encode().ljust(self._room)
        assert len(text) == self._room, "a header that is longer than its room"
        try:
            self._file.seek(0)
            self._write(memoryview(len(text).to_bytes(8, "little") + text))
            os.fsync(self._file.fileno())
            size = os.fstat(self._file.fileno()).st_size
            os.replace(self._path, self._target)
        except OSError as error:
            raise self._failed(error) from error
        self._file.close()
        self._file = None
        return size

    def _write(self, data: memoryview) -> None:
        # Without a buffer, which would be written once more, and fail, when a full file is closed.
        assert self._file is not None
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> ResourceError:
        return ResourceError(f"{self._target}: cannot be written: {error.strerror or error}")
