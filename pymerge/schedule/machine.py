"""What this process may use of the machine: processors and memory, the limits of its cgroups respected.

A limit holds for a group and everything below it, so the least one from the process's own group up to
the root counts. Memory that is *available* at this moment does not count: the page cache that a merge
fills itself would lower it, and the same command would behave differently from one minute to the next.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["list_memory_limits", "usable_memory", "usable_processors"]

#: Where the kernel's files are; tests have a root of their own.
_ROOT = Path("/")

#: Controller -> (file of cgroup v2, files of v1).
_MEMORY = ("memory", "memory.max", ("memory.limit_in_bytes",))
_PROCESSORS = ("cpu", "cpu.max", ("cpu.cfs_quota_us", "cpu.cfs_period_us"))


@dataclass(frozen=True, slots=True)
class _Mount:
    """A mounted cgroup hierarchy: where, which of its groups is at that place, v1's controllers (v2: none)."""

    folder: Path
    group: str
    controllers: tuple[str, ...]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _mounts() -> Iterator[_Mount]:
    """Hierarchies of /proc/self/mountinfo: id parent device root mount-point options ... - type source options."""
    for line in _read(_ROOT / "proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        group, folder = (re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), word) for word in fields[3:5])
        controllers = tuple(kind[2].split(",")) if kind[0] == "cgroup" else ()
        yield _Mount(_ROOT / folder.lstrip("/"), group, controllers)


def _groups() -> Iterator[tuple[tuple[str, ...], str]]:
    """(controllers, path) of each group that the process is in; the group of v2 has no controllers."""
    for line in _read(_ROOT / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        yield tuple(filter(None, controllers.split(","))), path


def _folders(controller: str) -> Iterator[tuple[Path, bool]]:
    """(folder, is v2) of every group that limits this process with a controller, innermost first."""
    for controllers, path in _groups():
        second = not controllers
        if not second and controller not in controllers:
            continue
        for mount in _mounts():
            if controller not in mount.controllers and not (second and not mount.controllers):
                continue
            # In a container the mount may show the container's own group as its root, or the path may
            # lead above it: what is not below the mounted group is looked for at the mount itself.
            inside = path.startswith(mount.group.rstrip("/") + "/")
            below = path[len(mount.group.rstrip("/")) :].strip("/") if inside else ""
            folder = mount.folder.joinpath(*(part for part in below.split("/") if part not in ("", "..")))
            yield from ((each, second) for each in (folder, *folder.parents) if each.is_relative_to(mount.folder))


def _limits(controller: str, second: str, first: tuple[str, ...]) -> Iterator[list[int]]:
    """The numbers in the files of every group; a word that is no number ("max") leaves its list short."""
    for folder, is_second in _folders(controller):
        words = [word for name in ((second,) if is_second else first) for word in _read(folder / name).split()]
        yield [int(word) for word in words if re.fullmatch(r"-?[0-9]+", word)]


def list_memory_limits() -> list[Path]:
    """The files that limit this process's memory, innermost group first; not all need exist."""
    controller, second, first = _MEMORY
    return [folder / (second if is_second else first[0]) for folder, is_second in _folders(controller)]


def usable_processors() -> int:
    """Processors that the scheduler gives this process, bounded by CPU quotas.

    A quota of 2.5 processors counts as 3: two threads would leave a fifth of it unused, three are only
    held back now and then.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for quota in _limits(*_PROCESSORS):
        if len(quota) == 2 and quota[0] > 0 and quota[1] > 0:
            count = min(count, -(-quota[0] // quota[1]))
    return max(1, count)


def usable_memory() -> int:
    """Bytes of memory: the machine's, or the least limit of the cgroups that this process is in.

    "No limit" is a word in v2 and a number above any machine's memory in v1.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([total, *(limit[0] for limit in _limits(*_MEMORY) if limit and limit[0] > 0)])
