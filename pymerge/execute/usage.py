"""What the process takes of the machine while it merges."""

from __future__ import annotations

import resource
from pathlib import Path

__all__ = ["MemoryWatch", "disk_bytes", "name_limit"]

_STATUS = Path("/proc/self/status")
#: Share of worker time with work below which the workers were waiting for free buffers.
_STARVED = 0.5
#: Share of that time on a processor below which something kept the workers off it, and share of the
#: bytes read that came from a disk from which on that something was the disk.
_STALLED = 0.6
_FROM_DISK = 0.2


class MemoryWatch:
    """Peaks of resident memory since this was made, in bytes; zero where the system does not tell.

    The system keeps the process's own peak of everything resident, which is exact as soon as the merge
    passes whatever came before it; else, and for anonymous memory, the peak is that of all looks.
    """

    def __init__(self) -> None:
        self.anonymous = 0
        self.resident = 0
        self._before = _read_status().get("VmHWM", 0)

    def sample(self) -> None:
        """Look once."""
        values = _read_status()
        peak = values.get("VmHWM", 0)
        self.anonymous = max(self.anonymous, values.get("RssAnon", 0))
        self.resident = max(self.resident, peak if peak > self._before else values.get("VmRSS", 0))


def _read_status() -> dict[str, int]:
    """The sizes that the system tells of this process, in bytes."""
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith(" kB")}


def disk_bytes() -> int:
    """Bytes that this process has had read from disks so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_inblock * 512


def name_limit(busy: float, cpu: float, available: float, from_disk: float) -> str:
    """What bounded a merge: "writing", "reading" or "computing".

    Args:
        busy, cpu: seconds that workers had work, and were on a processor with it.
        available: worker seconds in the whole run.
        from_disk: share of the bytes read that came from a disk and not from the page cache.
    """
    if busy < _STARVED * available:
        return "writing"
    return "reading" if cpu < _STALLED * busy and from_disk > _FROM_DISK else "computing"
