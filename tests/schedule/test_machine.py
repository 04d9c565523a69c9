"""What the process may use: limits of either kind of cgroup are respected."""

from __future__ import annotations

from pathlib import Path

import pytest

from pymerge.schedule import machine


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cgroup folder on a machine of 8 processors and 16 GiB."""
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(machine.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 4 << 20}.__getitem__)
    return tmp_path


def put(cgroup: Path, name: str, text: str) -> None:
    (cgroup / name).parent.mkdir(exist_ok=True)
    (cgroup / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "9900000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
    ],
)
def test_processors_are_bounded_by_the_quota(cgroup: Path, files: dict[str, str], count: int) -> None:
    for name, text in files.items():
        put(cgroup, name, text)
    assert machine.usable_processors() == count


@pytest.mark.parametrize(
    ("files", "size"),
    [
        ({}, 16 << 30),
        ({"memory.max": "max\n"}, 16 << 30),
        ({"memory.max": f"{1 << 30}\n"}, 1 << 30),
        ({"memory/memory.limit_in_bytes": f"{2 << 30}\n"}, 2 << 30),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, 16 << 30),
        ({"memory.max": "nonsense\n"}, 16 << 30),
    ],
)
def test_memory_is_bounded_by_the_limit(cgroup: Path, files: dict[str, str], size: int) -> None:
    for name, text in files.items():
        put(cgroup, name, text)
    assert machine.usable_memory() == size
