"""What this process may use of the machine: processors and memory, cgroup limits respected."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["usable_memory", "usable_processors"]

_CGROUP = Path("/sys/fs/cgroup")


def _read_numbers(path: Path) -> list[int]:
    try:
        words = path.read_text(encoding="ascii").split()
        return [int(word) for word in words if word.lstrip("-").isdigit()]
    except (OSError, ValueError):
        return []


def usable_processors() -> int:
    """Processors that the scheduler gives this process, bounded by a CPU quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _read_numbers(_CGROUP / "cpu.max")  # v2: "quota period"; "max period" has one number
    if len(quota) < 2:
        quota = _read_numbers(_CGROUP / "cpu/cpu.cfs_quota_us") + _read_numbers(_CGROUP / "cpu/cpu.cfs_period_us")
    if len(quota) == 2 and quota[0] > 0 and quota[1] > 0:
        count = min(count, max(1, quota[0] // quota[1]))
    return count


def usable_memory() -> int:
    """Bytes of memory: the machine's, or the least limit of a cgroup that this process is in."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = _read_numbers(_CGROUP / "memory.max") + _read_numbers(_CGROUP / "memory/memory.limit_in_bytes")
    return min([total, *(limit for limit in limits if limit > 0)])
