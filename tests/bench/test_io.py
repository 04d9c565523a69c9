"""The bench of a disk: every means moves the bytes, nothing stays behind, and what is not there is told."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pymerge.bench import io as bench
from pymerge.bench.io import MEANS, Means, bench_io, file_system, show
from pymerge.cli import app

BLOCK = 4 << 20


def test_every_means_is_timed_and_nothing_stays_behind(tmp_path: Path) -> None:
    found = list(bench_io(tmp_path, 2 * BLOCK, rounds=2))
    assert [(r["operation"], r["method"], r["cache"]) for r in found] == [
        (means.operation, means.method, means.cache) for means in MEANS
    ]
    for record in found:
        assert (record["ms"] is None) == bool(record["reason"])
        if record["ms"]:
            assert record["ms"]["best"] <= record["ms"]["median"] <= record["ms"]["worst"]
            assert record["rate"] == pytest.approx(2 * BLOCK / record["ms"]["median"] * 1e3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("means", [m for m in MEANS if not m.cache], ids=lambda means: means.method)
def test_what_writes_writes_every_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, means: Means) -> None:
    sizes = []
    unlink: Callable[[Path], None] = Path.unlink

    def note(path: Path) -> None:
        data = path.read_bytes()
        # Random bytes: no block that is nothing but zeros was left out.
        sizes.append((len(data), all(any(data[at : at + 4096]) for at in range(0, len(data), 4096))))
        unlink(path)

    monkeypatch.setattr(Path, "unlink", note)
    assert means.time(tmp_path / "file", 2 * BLOCK) > 0
    assert sizes == [(2 * BLOCK, True)]


def test_sizes_are_whole_blocks(tmp_path: Path) -> None:
    assert {record["bytes"] for record in bench_io(tmp_path, BLOCK + 1, rounds=1)} == {2 * BLOCK}


def test_what_a_disk_does_not_have_is_told_and_the_rest_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> float:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(bench, "MEANS", (Means("write", "direct", fail), MEANS[0]))
    first, second = bench_io(tmp_path, BLOCK, rounds=2)
    assert (first["ms"], first["reason"]) == (None, "not here: Invalid argument")
    assert second["ms"]
    lines: list[str] = []
    show([first, second], lines.append)
    assert "not here: Invalid argument" in lines[2]


def test_nothing_stays_behind_when_it_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(path: Path, _: int) -> float:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "MEANS", (Means("write", "buffered", stop),))
    with pytest.raises(KeyboardInterrupt):
        list(bench_io(tmp_path, BLOCK, rounds=1))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wants twice its size"):
        next(bench_io(tmp_path, 1 << 60))
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_is_named_by_the_mount_that_is_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mountinfo"
    inner = tmp_path / "inner"
    inner.mkdir()
    mounts.write_text(
        "1 1 8:1 / / rw - ext4 /dev/a rw\n"
        f"2 1 8:2 / {tmp_path} rw shared:1 - btrfs /dev/b rw\n"
        f"3 2 8:3 / {inner} rw - xfs /dev/c rw\n"
        f"4 2 8:4 / {tmp_path}/inner-not rw - tmpfs none rw\n"
    )
    monkeypatch.setattr(bench, "_MOUNTS", mounts)
    assert [file_system(path) for path in (inner, tmp_path, Path("/"))] == ["xfs", "btrfs", "ext4"]
    monkeypatch.setattr(bench, "_MOUNTS", tmp_path / "none")
    assert file_system(inner) == "unknown"


def test_the_command_prints_a_table_and_keeps_a_history(tmp_path: Path) -> None:
    history = tmp_path / "history.jsonl"
    arguments = ["bench", "io", str(tmp_path), "--size", "4MiB", "--rounds", "1", "--history", str(history)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[1].split()[:3] == ["operation", "method", "from"]
    kept = [json.loads(line) for line in history.read_text().splitlines()]
    assert len(kept) == len(lines) - 2 == len(MEANS)
    assert {record["bench"] for record in kept} == {"io"}
    answer = CliRunner().invoke(app, [*arguments[:-2], "--format", "json"])
    assert len(json.loads(answer.stdout)) == len(MEANS)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", "io", str(tmp_path / "nowhere")])
    assert result.exit_code == 2
    assert "is no folder" in result.stderr
