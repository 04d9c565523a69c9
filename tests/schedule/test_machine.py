"""What the process may use: limits of its cgroups, of either kind and at any depth, are respected."""

from __future__ import annotations

from pathlib import Path

import pytest

from pymerge.schedule import machine

GIB = 1 << 30
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1_MEMORY = "33 23 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
V1_CPU = "34 23 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
TMPFS = "29 23 0:25 / /sys/fs/cgroup ro - tmpfs tmpfs rw"

V1_QUOTA, V1_PERIOD = ("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_" + name for name in ("quota_us", "period_us"))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty root folder, on a machine of 8 processors and 16 GiB."""
    monkeypatch.setattr(machine, "_ROOT", tmp_path)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(machine.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 4 << 20}.__getitem__)
    return tmp_path


def put(root: Path, groups: str, mounts: list[str], files: dict[str, str]) -> None:
    written = {"proc/self/cgroup": groups, "proc/self/mountinfo": "\n".join(mounts) + "\n", **files}
    for name, text in written.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "count"),
    [
        ("0::/a\n", [V2], {}, 8),
        ("0::/a\n", [V2], {"sys/fs/cgroup/a/cpu.max": "max 100000\n"}, 8),
        ("0::/a\n", [V2], {"sys/fs/cgroup/a/cpu.max": "200000 100000\n"}, 2),
        ("0::/a\n", [V2], {"sys/fs/cgroup/a/cpu.max": "250000 100000\n"}, 3),
        ("0::/a\n", [V2], {"sys/fs/cgroup/a/cpu.max": "1000 100000\n"}, 1),
        ("0::/a\n", [V2], {"sys/fs/cgroup/a/cpu.max": "9900000 100000\n"}, 8),
        ("0::/a/b\n", [V2], {"sys/fs/cgroup/a/cpu.max": "400000 100000\n", "sys/fs/cgroup/a/b/cpu.max": "max 1\n"}, 4),
        ("0::/b\n", [V2], {"sys/fs/cgroup/a/cpu.max": "100000 100000\n"}, 8),
        ("3:cpu,cpuacct:/a\n", [TMPFS, V1_CPU], {V1_QUOTA: "-1\n", V1_PERIOD: "100000\n"}, 8),
        ("3:cpu,cpuacct:/a\n", [TMPFS, V1_CPU], {V1_QUOTA: "310000\n", V1_PERIOD: "100000\n"}, 4),
        ("3:cpu,cpuacct:/a\n", [TMPFS, V1_CPU], {V1_QUOTA: "310000\n"}, 8),
        ("3:cpuacct:/a\n", [TMPFS, V1_CPU], {V1_QUOTA: "100000\n", V1_PERIOD: "100000\n"}, 8),
    ],
)
def test_processors_are_bounded_by_the_quota(
    root: Path, groups: str, mounts: list[str], files: dict[str, str], count: int
) -> None:
    put(root, groups, mounts, files)
    assert machine.usable_processors() == count


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "size"),
    [
        ("0::/a\n", [V2], {}, 16),
        ("0::/a\n", [V2], {"sys/fs/cgroup/a/memory.max": "max\n"}, 16),
        ("0::/a\n", [V2], {"sys/fs/cgroup/a/memory.max": f"{GIB}\n"}, 1),
        ("0::/a\n", [V2], {"sys/fs/cgroup/a/memory.max": f"{99 * GIB}\n"}, 16),
        ("0::/a\n", [V2], {"sys/fs/cgroup/a/memory.max": "nonsense\n"}, 16),
        # An ancestor's limit holds below it, whichever is less; a sister's does not.
        (
            "0::/a/b/c\n",
            [V2],
            {"sys/fs/cgroup/a/memory.max": f"{3 * GIB}", "sys/fs/cgroup/a/b/memory.max": f"{5 * GIB}"},
            3,
        ),
        (
            "0::/a/b\n",
            [V2],
            {"sys/fs/cgroup/a/memory.max": f"{5 * GIB}", "sys/fs/cgroup/a/b/memory.max": f"{3 * GIB}"},
            3,
        ),
        ("0::/a\n", [V2], {"sys/fs/cgroup/b/memory.max": f"{GIB}\n"}, 16),
        # In a container with a namespace of its own the group is "/", and the limit lies at the mount.
        ("0::/\n", [V2], {"sys/fs/cgroup/memory.max": f"{2 * GIB}\n"}, 2),
        ("4:memory:/a\n", [TMPFS, V1_MEMORY], {"sys/fs/cgroup/memory/a/memory.limit_in_bytes": f"{2 * GIB}\n"}, 2),
        (
            "4:memory:/a\n0::/\n",
            [TMPFS, V1_MEMORY],
            {"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "9223372036854771712\n"},
            16,
        ),
        # A container without one: the path is the host's, the mounted group is the container's.
        (
            "4:memory:/docker/x\n",
            [V1_MEMORY.replace(" / ", " /docker/x ", 1)],
            {"sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GIB}\n"},
            1,
        ),
        (
            "4:memory:/docker/x/y\n",
            [V1_MEMORY.replace(" / ", " /docker/x ", 1)],
            {"sys/fs/cgroup/memory/y/memory.limit_in_bytes": f"{GIB}\n"},
            1,
        ),
        # Mounted elsewhere, in a folder with a space; both kinds at once; a path that leads outside.
        (
            "4:memory:/a\n",
            [V1_MEMORY.replace("/sys/fs/cgroup/memory", "/my\\040groups")],
            {"my groups/a/memory.limit_in_bytes": f"{GIB}\n"},
            1,
        ),
        (
            "4:memory:/a\n0::/a\n",
            [V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified"), V1_MEMORY],
            {"sys/fs/cgroup/memory/a/memory.limit_in_bytes": f"{GIB}\n"},
            1,
        ),
        ("0::/../../a\n", [V2], {"sys/fs/cgroup/memory.max": f"{4 * GIB}\n"}, 4),
        ("garbage\n:\n", ["garbage - cgroup2", " - ", ""], {}, 16),
    ],
)
def test_memory_is_bounded_by_the_least_limit(
    root: Path, groups: str, mounts: list[str], files: dict[str, str], size: int
) -> None:
    put(root, groups, mounts, files)
    assert machine.usable_memory() == size * GIB


def test_without_cgroups_the_machine_is_the_limit(root: Path) -> None:
    assert (machine.usable_processors(), machine.usable_memory()) == (8, 16 * GIB)


def test_affinity_is_respected(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {5}, raising=False)
    assert machine.usable_processors() == 1
