"""What stops a merge says where and why, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import disks
import ml_dtypes
import numpy as np
import pytest
from execute import merges
from execute.merges import make_recipe, random_tensors, schedule
from skip_gate import can_mount

import pymerge
from pymerge.errors import DTypeError, FormatError, NonFiniteError, ResourceError
from pymerge.execute import Progress, execute
from pymerge.schedule import Schedule

BACKENDS = ["cpu", "reference"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    return merges.write_models(tmp_path, [random_tensors(seed, np.float32) for seed in range(4)])


def linear(models: list[Path], **options: Any) -> Schedule:
    return schedule(make_recipe("linear", models, dtype=options.pop("dtype", "float32")), **options)


def with_value(tmp_path: Path, name: str, shape: tuple[int, ...], at: int, value: float) -> list[Path]:
    """Three models; the second has `value` at flat index `at` of tensor `name`."""
    models = [{**random_tensors(seed, np.float32), name: np.ones(shape, np.float32)} for seed in range(3)]
    models[1][name].flat[at] = value
    return merges.write_models(tmp_path, models)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_nonfinite_value_stops_with_tensor_index_and_source(
    tmp_path: Path, out: Path, backend: str, value: float
) -> None:
    # Behind the first measuring tile (262,144 elements) and many output blocks.
    models = with_value(tmp_path, "layers.0.big", (700, 500), 300_007, value)
    with pytest.raises(NonFiniteError) as caught:
        execute(linear(models), out, backend=backend)
    message = str(caught.value)
    assert message.startswith("layers.0.big: the merged value at flat index 300007 (shape [700, 500]) is not finite")
    assert f"it is not finite in {models[1]} ({models[1] / 'model.safetensors'}) either" in message
    assert "--allow-nonfinite" in message
    assert str(models[0]) not in message
    assert caught.value.exit_code == 3
    assert list(out.iterdir()) == []


def test_an_overflow_is_told_from_a_bad_input(tmp_path: Path, out: Path) -> None:
    models = with_value(tmp_path, "big", (4000,), 3999, 1e9)
    with pytest.raises(NonFiniteError, match=r"^big: .*flat index 3999 .*overflowed in float16; try out_dtype"):
        execute(linear(models, dtype="float16"), out)


@pytest.mark.parametrize("backend", BACKENDS)
def test_allowed_nonfinite_values_are_counted_exactly(tmp_path: Path, out: Path, backend: str) -> None:
    random = np.random.default_rng(5)
    models = [random_tensors(seed, np.float32) for seed in range(3)]
    counts = {}
    for name in ("embed", "layers.1.weight", "scalar"):
        size = models[0][name].size
        places = random.choice(size, max(1, size // 3), replace=False)
        models[0][name].flat[places] = random.choice([np.nan, np.inf], places.size)
        counts[name] = places.size
    folders = merges.write_models(tmp_path, models)
    report = execute(linear(folders), out, backend=backend, allow_nonfinite=True)
    assert report.nonfinite == counts
    assert (out / "model.safetensors").exists()


def test_integers_that_differ_name_tensor_element_and_files(tmp_path: Path, out: Path) -> None:
    models = [{**random_tensors(seed), "positions": np.arange(5000)} for seed in range(3)]
    models[2]["positions"][4321] += 1
    folders = merges.write_models(tmp_path, models)
    first, other = (re.escape(str(folders[place] / "model.safetensors")) for place in (0, 2))
    message = f'tensor "positions": element 4321 differs between {first} and {other}, and integers cannot be merged'
    with pytest.raises(DTypeError, match=message) as caught:
        execute(linear(folders), out)
    assert caught.value.exit_code == 3
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_input_that_was_cut_after_planning_is_refused(out: Path, models: list[Path], backend: str) -> None:
    made = linear(models)
    path = models[1] / "model.safetensors"
    os.truncate(path, path.stat().st_size - 5)
    with pytest.raises(FormatError, match=f"^{re.escape(str(path))}: changed since the merge was planned") as caught:
        execute(made, out, backend=backend)
    assert caught.value.exit_code == 3
    assert list(out.iterdir()) == []


def test_an_input_that_was_written_again_is_refused(out: Path, models: list[Path]) -> None:
    made = linear(models)
    path = models[2] / "model.safetensors"
    os.utime(path, ns=(0, 1))
    with pytest.raises(FormatError, match="changed since the merge was planned"):
        execute(made, out)


def test_an_input_that_is_gone_is_refused(out: Path, models: list[Path]) -> None:
    made = linear(models)
    (models[0] / "model.safetensors").unlink()
    with pytest.raises(FormatError, match=f"^{re.escape(str(models[0]))}.*cannot be read any more"):
        execute(made, out)


def test_an_input_that_changes_during_the_merge_spoils_it(out: Path, models: list[Path]) -> None:
    made = linear(models, threads=1, block=4096, buffers=1)

    def touch(_: Progress) -> None:
        os.utime(models[0] / "model.safetensors", ns=(0, 1))

    with pytest.raises(FormatError, match="changed since"):
        execute(made, out, on_progress=touch)
    assert list(out.iterdir()) == []


def test_an_output_folder_that_is_gone_is_a_matter_of_the_disk(tmp_path: Path, models: list[Path]) -> None:
    with pytest.raises(ResourceError, match="cannot create: No such file or directory") as caught:
        execute(linear(models), tmp_path / "nowhere")
    assert caught.value.exit_code == 5


def test_a_later_failure_removes_earlier_shards(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = np.array([1, np.nan], np.float32)
    tensors = {f"t{place:03}": np.ones(5, np.float32) for place in range(90)}
    models = merges.write_models(tmp_path, [{**tensors, "zzz": bad}] * 3)
    finished = 0
    remove = Path.unlink

    def count(path: Path, missing_ok: bool = False) -> None:
        nonlocal finished
        finished += path.name.startswith("model-") and path.exists()
        remove(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", count)
    # More files than may be open at once, so that the first are finished before the last is begun.
    with pytest.raises(NonFiniteError, match=r"^zzz"):
        execute(linear(models, shard_size=1), out)
    assert finished > 0
    assert list(out.iterdir()) == []


def test_what_was_there_before_is_left_alone(tmp_path: Path, out: Path) -> None:
    # One shard that cannot be finished: the file of an earlier merge under its name is not its work.
    models = with_value(tmp_path, "embed", (9,), 1, np.nan)
    (out / "model.safetensors").write_text("an older merge")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(NonFiniteError):
        execute(linear(models), out)
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        "model.safetensors": "an older merge",
        "notes.txt": "mine",
    }


def test_an_interrupt_stops_at_once_and_leaves_nothing(tmp_path: Path, out: Path) -> None:
    models = [{"big": np.ones((2000, 1000), ml_dtypes.bfloat16)} for _ in range(3)]
    made = schedule(make_recipe("ties", merges.write_models(tmp_path, models)))
    before = threads()

    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(made, out, on_progress=interrupt)
    assert list(out.iterdir()) == []
    assert threads() == before


def threads() -> int:
    """Threads of this process that are still alive; one that has just been joined may linger for a moment."""
    folder = Path("/proc/self/task")
    if not folder.exists():
        pytest.skip("needs Linux: threads are counted in /proc")
    counts = []
    for _ in range(20):
        counts.append(len(list(folder.iterdir())))
        time.sleep(0.001)
    return min(counts)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    if not can_mount():
        pytest.skip("needs the right to mount file systems")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def free_space(folder: Path) -> int:
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize


def test_a_full_disk_is_reported_and_given_back(tmp_path: Path, small_disk: Path) -> None:
    # Each of the two files has room, both have not: what is missed first is chance, since tmpfs reserves nothing.
    models = [{"layers.0.w": np.ones(200_000, np.float32), "layers.1.w": np.ones(200_000, np.float32)}] * 3
    made = linear(merges.write_models(tmp_path, models), shard_size=800_000)
    free = free_space(small_disk)
    with pytest.raises(
        ResourceError, match=r"cannot (reserve|write).*: No space left on device; free some space"
    ) as caught:
        execute(made, small_disk)
    assert caught.value.exit_code == 5
    assert list(small_disk.iterdir()) == []
    assert free_space(small_disk) == free


def test_a_file_larger_than_the_disk_is_refused_before_a_byte_is_written(tmp_path: Path, small_disk: Path) -> None:
    made = linear(merges.write_models(tmp_path, [{"layers.0.w": np.ones(400_000, np.float32)}] * 3))
    with pytest.raises(ResourceError, match=rf"cannot reserve {made.shards[0].size} bytes: No space left on device"):
        execute(made, small_disk)
    assert list(small_disk.iterdir()) == []


def test_a_disk_without_a_limit_is_not_taken_for_a_full_one(small_disk: Path, models: list[Path]) -> None:
    subprocess.run(["umount", str(small_disk)], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=0", "tmpfs", str(small_disk)], check=True)
    assert os.statvfs(small_disk).f_blocks == 0
    pymerge.merge(make_recipe("linear", models), small_disk)
    assert (small_disk / "model.safetensors").exists()


def test_space_for_all_files_is_set_aside_before_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merges.take_small_steps(monkeypatch)
    hindrance = disks.find_hindrance("ext4")
    if hindrance:
        pytest.skip(hindrance)
    with disks.mounted("ext4", tmp_path) as folder:
        present, free = sorted(folder.iterdir()), free_space(folder)
        # Shards of 30 % of the disk: three are room enough for, four not.
        count = free * 3 // 10 // 4
        for shards, fits in ((3, True), (4, False)):
            weights = [{f"layers.{i}.w": np.zeros(count, np.float32) for i in range(shards)}] * 2
            models = merges.write_models(tmp_path / str(shards), weights)
            made = linear(models, shard_size=4 * count, threads=1, block=4096, buffers=1)
            found: list[int] = []

            def note(progress: Progress, found: list[int] = found) -> None:
                if progress.written < count:
                    found.append(free_space(folder))
                raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt if fits else ResourceError) as caught:
                execute(made, folder, on_progress=note)
            assert fits or re.search("cannot reserve [0-9]+ bytes: No space left on device", str(caught.value))
            assert [space <= free - shards * 4 * count for space in found] == [True] * fits
            assert sorted(folder.iterdir()) == present
            assert free_space(folder) == free


def test_a_read_only_folder_is_reported(small_disk: Path, models: list[Path]) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(ResourceError, match="cannot create: Read-only file system"):
        execute(linear(models), small_disk)
