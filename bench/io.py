"""How fast the disk of a folder reads and writes one file, by each means that a merge may use.

`pymerge bench io` is its command line. Every round goes through all means, so that what else the machine does
meets all of them alike. Writes end with the bytes on the disk. Cold reads come from the disk; warm ones from the
page cache, as it holds a file that was read.
"""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import records
from .floor import CHUNK, DIRECT_CHUNK, drop_caches, read_all, warm_caches, write_plain
from .spread import Spread
from .table import Column, show_header, show_row

__all__ = ["MEANS", "SIZE", "Means", "bench_io", "file_system", "show"]

Record = dict[str, Any]

#: Bytes of the file: many times what disks have as a cache of their own would take minutes.
SIZE = 512 << 20
_MOUNTS = Path("/proc/self/mountinfo")


def file_system(folder: Path) -> str:
    """The type of the file system that a folder is on, such as "ext4"; "unknown" where the system does not tell."""
    found = "unknown"
    place = folder.resolve()
    longest = -1
    try:
        lines = _MOUNTS.read_text(errors="replace").splitlines()
    except OSError:
        return found
    for line in lines:
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) > 4 and kind and place.is_relative_to(fields[4]) and len(fields[4]) >= longest:
            # Of several mounts at one place the last one counts.
            longest, found = len(fields[4]), kind[0]
    return found


def _write_mapped(path: Path, size: int) -> float:
    block = os.urandom(CHUNK)
    started = time.perf_counter()
    with path.open("w+b") as file:
        os.posix_fallocate(file.fileno(), 0, size)
        with mmap.mmap(file.fileno(), size) as mapped:
            for at in range(0, size, CHUNK):
                mapped[at : at + CHUNK] = block
            mapped.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - started
    path.unlink()
    return seconds


def _read_mapped(path: Path) -> float:
    started = time.perf_counter()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        words = np.frombuffer(mapped, np.uint64)
        words.sum()
        del words  # or the mapping could not be closed
    return time.perf_counter() - started


def _read_direct(path: Path) -> float:
    buffer = mmap.mmap(-1, DIRECT_CHUNK)
    started = time.perf_counter()
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        while os.readv(fd, [buffer]):
            pass
    finally:
        os.close(fd)
    return time.perf_counter() - started


@dataclass(frozen=True, slots=True)
class Means:
    """One way to move a file's bytes.

    Attributes:
        time: seconds that it takes, of a file of so many bytes; what writes removes it again, what reads finds it.
        cache: where a read finds the file: "cold", on the disk; "warm", in the page cache.
    """

    operation: str
    method: str
    time: Callable[[Path, int], float]
    cache: str = ""


_DIRECT = getattr(os, "O_DIRECT", None)

MEANS = (
    Means("write", "buffered", lambda path, size: write_plain(path, size, 0, CHUNK)),
    *(
        [Means("write", "direct", lambda path, size: write_plain(path, size, os.O_DIRECT, DIRECT_CHUNK))]
        if _DIRECT
        else []
    ),
    Means("write", "mapped", _write_mapped),
    Means("read", "buffered", lambda path, _: read_all([path]), "cold"),
    *([Means("read", "direct", lambda path, _: _read_direct(path), "cold")] if _DIRECT else []),
    Means("read", "mapped", lambda path, _: _read_mapped(path), "cold"),
    Means("read", "buffered", lambda path, _: read_all([path]), "warm"),
    Means("read", "mapped", lambda path, _: _read_mapped(path), "warm"),
)
#: What is done to the file before it is read.
_BEFORE = {"cold": drop_caches, "warm": warm_caches}

COLUMNS = (
    Column("operation", -9, lambda record: record["operation"]),
    Column("method", -8, lambda record: record["method"]),
    Column("from", -5, lambda record: record["cache"]),
    Column("ms (best..worst)", 30, lambda record: Spread(**record["ms"]).show(0) if record["ms"] else record["reason"]),
    Column("GB/s", 6, lambda record: f"{record['rate'] / 1e9:.2f}" if record["rate"] else "-"),
)


def bench_io(folder: Path, size: int = SIZE, rounds: int = 5, history: Path | None = None) -> Iterator[Record]:
    """Time all means; a record for each of them, with a reason instead of times where the disk has none of it.

    Args:
        folder: a file is written to it, and removed.
        size: bytes of the file, rounded up to whole blocks of 4 MiB.
        rounds: timed passes of each.
        history: a file of JSON lines that gets the records.

    Raises:
        ValueError: the folder is none, or its disk has not twice as much room.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder")
    size = max(1, -(-size // DIRECT_CHUNK)) * DIRECT_CHUNK
    disk = shutil.disk_usage(folder)
    if disk.total and disk.free < 2 * size:
        raise ValueError(f"{folder} has room for {disk.free:,} bytes; a file of {size:,} wants twice its size")
    facts = {
        "bench": "io",
        "time": records.stamp(),
        "machine": records.machine(),
        "file_system": file_system(folder),
        "bytes": size,
        "rounds": rounds,
    }
    times: dict[Means, list[float]] = {means: [] for means in MEANS}
    reasons: dict[Means, str] = {}
    with tempfile.TemporaryDirectory(prefix=".pymerge-bench-", dir=folder) as place:
        source = Path(place) / "read.bin"
        _fill(source, size)
        for _ in range(rounds):
            for means in (means for means in MEANS if means not in reasons):
                try:
                    if means.cache:
                        _BEFORE[means.cache]([source])
                    times[means].append(means.time(source if means.cache else Path(place) / "write.bin", size))
                except OSError as error:
                    reasons[means] = f"not here: {error.strerror}"
    for means, seconds in times.items():
        spread = None if means in reasons else Spread.of([value * 1e3 for value in seconds])
        record = facts | {
            "operation": means.operation,
            "method": means.method,
            "cache": means.cache,
            "ms": spread and spread.to_json(),
            "rate": spread and size / spread.median * 1e3,
            "reason": reasons.get(means),
        }
        if history is not None:
            records.append(history, [record])
        yield record


def _fill(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size // DIRECT_CHUNK):
            file.write(os.urandom(DIRECT_CHUNK))
        file.flush()
        os.fsync(file.fileno())


def show(found: Iterable[Record], out: Callable[[str], None]) -> None:
    """Print records as a table."""
    for at, record in enumerate(found):
        if not at:
            out(f"{record['machine']['processor']}, {record['file_system']}, {record['bytes'] >> 20} MiB")
            out(show_header(COLUMNS))
        out(show_row(COLUMNS, record))
