"""What no merge can beat: reading every input byte once, and writing the output's bytes by the best
plain means there is. Timed in the same run as the merges it is compared to.
"""

from __future__ import annotations

import mmap
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

_CHUNK = 1 << 20
_DIRECT_CHUNK = 4 << 20


def read_all(paths: list[Path]) -> float:
    """Seconds to read every byte of the files once."""
    buffer = bytearray(_CHUNK)
    started = time.perf_counter()
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - started


def _write(path: Path, size: int, flags: int, chunk: int) -> float:
    buffer = mmap.mmap(-1, chunk)  # page-aligned, as direct writes need
    buffer.write(os.urandom(4096) * (chunk // 4096))
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


def write_means(folder: Path, size: int, source: Path) -> dict[str, Callable[[], float]]:
    """Name and timer of each plain way to write `size` bytes; `source` is a file of about that size to copy."""
    target = folder / "floor.bin"
    means: dict[str, Callable[[], float]] = {
        "buffered": lambda: _write(target, size, 0, _CHUNK),
        "cp": lambda: _copy(target, source),
    }
    if hasattr(os, "O_DIRECT"):
        means["direct"] = lambda: _write(target, size, os.O_DIRECT, _DIRECT_CHUNK)
    return means
