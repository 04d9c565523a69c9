"""What no merge can beat: reading every input byte once, and writing the output's bytes by the best
plain means there is. Timed in the same run as the merges it is compared to.
"""

from __future__ import annotations

import mmap
import os
import shutil
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["CHUNK", "DIRECT_CHUNK", "Floor", "drop_caches", "read_all", "warm_caches", "write_plain"]

CHUNK = 1 << 20
DIRECT_CHUNK = 4 << 20


def drop_caches(paths: Sequence[Path]) -> None:
    """Have files read from the disk again: their pages are dropped from the page cache."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)  # what is not on the disk yet cannot be dropped
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def warm_caches(paths: Sequence[Path]) -> None:
    """Have the page cache hold the files as it does after they were read from the disk.

    Just written, they would lie in smaller pages, which are dearer to read.
    """
    drop_caches(paths)
    read_all(paths)


def read_all(paths: Sequence[Path]) -> float:
    """Seconds to read every byte of the files once."""
    buffer = bytearray(CHUNK)
    started = time.perf_counter()
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - started


def write_plain(path: Path, size: int, flags: int, chunk: int) -> float:
    """Seconds to write and sync a file of `size` bytes, chunk by chunk; it is removed."""
    buffer = mmap.mmap(-1, chunk)  # page-aligned, as direct writes need
    buffer.write(os.urandom(chunk))
    started = time.perf_counter()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | flags, 0o666)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, size)
        at = 0
        while at < size:
            at += os.pwrite(fd, memoryview(buffer), at)
        os.ftruncate(fd, size)
        os.fsync(fd)
    finally:
        os.close(fd)
    seconds = time.perf_counter() - started
    path.unlink()
    return seconds


def _copy(path: Path, source: Path) -> float:
    started = time.perf_counter()
    shutil.copyfile(source, path)
    seconds = time.perf_counter() - started
    path.unlink()
    return seconds


class Floor:
    """Collects rounds; the floor is the best read plus the best write over all plain means.

    `cp` leaves what it wrote in the page cache; the other means end with the bytes on the disk, as a merge
    does: their best is the synced floor. Cold, a disk may serve reading and writing no faster at once than
    in turns, which `together` tells.

    Args:
        inputs: the files that a merge reads.
        like: a file of about the output's size, which is what gets written.
        folder: where to write.
        cold: drop the inputs from the page cache before they are read.
    """

    def __init__(self, inputs: list[Path], like: Path, folder: Path, *, cold: bool = False) -> None:
        self._inputs = inputs
        self._like = like
        self._cold = cold
        size, target = like.stat().st_size, folder / "floor.bin"
        self._means: dict[str, Callable[[], float]] = {
            "buffered": lambda: write_plain(target, size, 0, CHUNK),
            "cp": lambda: _copy(target, like),
        }
        if hasattr(os, "O_DIRECT"):
            self._means["direct"] = lambda: write_plain(target, size, os.O_DIRECT, DIRECT_CHUNK)
        self.reads: list[float] = []
        self.together: list[float] = []
        self.writes: dict[str, list[float]] = {name: [] for name in self._means}

    def measure(self) -> None:
        """One round: read once, write by each means."""
        if self._cold:
            drop_caches(self._inputs)
        self.reads.append(read_all(self._inputs))
        for name, write in self._means.items():
            self.writes[name].append(write())
        if self._cold:
            drop_caches(self._inputs)
            self.together.append(self._do_both())

    def _do_both(self) -> float:
        write = self._means.get("direct", self._means["buffered"])
        writer = threading.Thread(target=write)
        started = time.perf_counter()
        writer.start()
        read_all(self._inputs)
        writer.join()
        return time.perf_counter() - started

    @property
    def best(self) -> float:
        """Seconds: what results are divided by."""
        return min(self.reads) + min(map(min, self.writes.values()))

    @property
    def synced(self) -> float:
        """Seconds: the same, of the means that end on the disk."""
        return min(self.reads) + min(min(times) for name, times in self.writes.items() if name != "cp")

    @property
    def median(self) -> float:
        """Seconds: medians instead of bests."""
        return statistics.median(self.reads) + min(map(statistics.median, self.writes.values()))

    def to_json(self) -> dict[str, Any]:
        """The floor as plain values, in seconds."""
        return {
            "best": self.best,
            "synced": self.synced,
            "median": self.median,
            "read": min(self.reads),
            "read_median": statistics.median(self.reads),
            "together": statistics.median(self.together) if self.together else None,
            "means": {name: min(times) for name, times in self.writes.items()},
        }
