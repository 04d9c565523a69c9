"""The journal of an unfinished merge: what it makes, and which tensors the disk holds for certain.

A file of JSON lines in the output folder, gone when the folder is complete:

    {"journal": 1, "identity": {...}}          what decides the output's bytes
    {"process": 4711, "host": "box", ...}      each attempt: who
    {"tensor": "...", "digest": "..."}         each tensor that is written and synced

A line that a crash cut short is ignored, and everything after it. While a merge runs it holds a lock
on this file, which is how two merges into one folder find out about each other.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from pymerge.errors import ResourceError

__all__ = ["JOURNAL", "Journal", "claim"]

JOURNAL = ".pymerge.journal"
_FORMAT = 1


class Journal:
    """An open journal; `claim` makes one. Leaving it as a context releases the lock; after an error, a new
    journal with nothing recorded goes.

    Attributes:
        identity: what an earlier attempt recorded; None for a new journal.
        recorded: tensor -> digest, of earlier attempts and of this one.
        damaged: True if the file is there but its first line cannot be read.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.identity: Mapping[str, Any] | None = None
        self.recorded: dict[str, str] = {}
        self.damaged = False
        self._descriptor = descriptor
        self._folder_synced = False
        self._load()
        self._new = self.identity is None and not self.damaged

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._new and not self.recorded:
            self.remove()
        self.close()

    def _load(self) -> None:
        content = _read_all(self._descriptor)
        valid = 0
        for line in content.splitlines(keepends=True):
            entry = _parse(line)
            if entry is None:
                break
            if valid == 0:
                if entry.get("journal") != _FORMAT or not isinstance(entry.get("identity"), dict):
                    break
                self.identity = entry["identity"]
            elif isinstance(entry.get("tensor"), str) and isinstance(entry.get("digest"), str):
                self.recorded[entry["tensor"]] = entry["digest"]
            valid += len(line)
        # A first line without its end is a merge that was killed before it did anything.
        self.damaged = self.identity is None and b"\n" in content
        if not self.damaged:
            os.ftruncate(self._descriptor, valid)
            os.lseek(self._descriptor, 0, os.SEEK_END)

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Say what will be made, unless an earlier attempt said it, and by whom.

        Raises:
            ResourceError: the disk refuses.
        """
        if self.identity is None:
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            self._write([{"journal": _FORMAT, "identity": identity}])
            self.identity = identity
        self._write([_describe_process()])
        self._sync()

    def record(self, digests: Mapping[str, str], *, durable: bool = True) -> None:
        """Note tensors that are written and synced.

        Args:
            durable: what is noted survives a power cut from here on.

        Raises:
            ResourceError: the disk refuses.
        """
        self._write({"tensor": name, "digest": digest} for name, digest in digests.items())
        self.recorded.update(digests)
        if durable:
            self._sync()

    def forget(self) -> None:
        """Drop what an earlier attempt said and recorded."""
        self.identity = None
        self.recorded = {}

    def remove(self) -> None:
        """Delete the file: the merge is complete, or nothing of it is left."""
        if self._descriptor >= 0:
            self.path.unlink(missing_ok=True)
            self.close()

    def close(self) -> None:
        """Release the lock; the file stays."""
        # In this order: Ctrl-C may come between the two, and the number be another file's by then.
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _sync(self) -> None:
        try:
            os.fsync(self._descriptor)
            if not self._folder_synced:
                _sync_folder(self.path.parent)
                self._folder_synced = True
        except OSError as error:
            raise _refusal(self.path, error) from error

    def _write(self, entries: Iterable[Mapping[str, Any]]) -> None:
        data = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            raise _refusal(self.path, error) from error


def claim(folder: Path, name: str = JOURNAL) -> Journal:
    """Open the journal in `folder`, new or of an earlier attempt, and lock it.

    Raises:
        ResourceError: another merge is writing there (named), or the folder refuses.
    """
    path = folder / name
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise _refusal(path, error) from error
        try:
            if not _lock(descriptor):
                raise ResourceError(f"output folder {folder} is in use: {_name_holder(descriptor)} is merging into it")
            # Its last holder may have deleted the file before the lock was ours.
            if _is_same(path, descriptor):
                return Journal(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # A file system without locks: the user is alone in keeping merges apart.
        return True
    return True


def _is_same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _name_holder(descriptor: int) -> str:
    holder: dict[str, Any] = {}
    for line in _read_all(descriptor).splitlines(keepends=True):
        entry = _parse(line) or {}
        holder = entry if "process" in entry else holder
    if not holder:
        return "another process"
    return f"process {holder['process']} on {holder.get('host')} (since {holder.get('since')})"


def _describe_process() -> dict[str, Any]:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"process": os.getpid(), "host": os.uname().nodename, "since": since}


def _read_all(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    content = b""
    while len(content) < size and (part := os.pread(descriptor, size - len(content), len(content))):
        content += part
    return content


def _parse(line: bytes) -> dict[str, Any] | None:
    """The entry of a whole line; None for anything else."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some file systems cannot, and say so
    finally:
        os.close(descriptor)


def _refusal(path: Path, error: OSError) -> ResourceError:
    return ResourceError(f"{path}: the journal cannot be written: {error.strerror or error}")
