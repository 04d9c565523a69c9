"""Results as JSON lines, each with the machine that it was measured on."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pymerge
from pymerge import _core

__all__ = ["append", "last_level_cache", "machine", "processor", "read", "stamp"]

_CPU = Path("/sys/devices/system/cpu/cpu0/cache")
#: Taken where the system does not tell: larger than most.
_USUAL_CACHE = 32 << 20


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def last_level_cache() -> int:
    """Bytes of the largest cache that one processor uses."""
    sizes = [path.read_text().strip() for path in _CPU.glob("index*/size")]
    units = {"K": 1 << 10, "M": 1 << 20}
    known = [int(size[:-1]) * units[size[-1]] for size in sizes if size[-1:] in units]
    return max(known, default=_USUAL_CACHE)


def machine() -> dict[str, Any]:
    """What a number means nothing without."""
    return {
        "pymerge": pymerge.__version__,
        "processor": processor(),
        "processors": len(os.sched_getaffinity(0)),
        "cache": last_level_cache(),
        "isa": _core.active_isa(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def stamp() -> str:
    """The time, in UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def append(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Add one line per record; the folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file, oldest first."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            yield json.loads(line)
