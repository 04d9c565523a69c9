"""A merge that was stopped goes on where it was, to the same bytes, believing nothing that it has not checked."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from digests import digest
from execute import merges
from execute.merges import METHODS, make_recipe, schedule
from hypothesis import given, settings
from hypothesis import strategies as st

from pymerge import _core
from pymerge.execute import ExecutionReport, Progress, execute
from pymerge.execute.journal import JOURNAL, claim
from pymerge.schedule import Schedule

IDENTITY = {"merge": "this one"}


def random_tensors(seed: int) -> merges.Tensors:
    """Many tensors of a few kilobytes, some in the middle of others' pages, none larger than the rest together."""
    origin, own = np.random.default_rng(0), np.random.default_rng(seed + 1)
    shapes = {f"layers.{i}.weight": (37, 33 + i) for i in range(24)}
    shapes |= {"layers.3.bias": (5,), "layers.9.empty": (0, 4), "scalar": ()}
    return {
        name: np.asarray(origin.standard_normal(shape) * 0.05 + own.standard_normal(shape) * 0.02, np.float32)
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return merges.write_models(tmp_path_factory.mktemp("models"), [random_tensors(seed) for seed in range(4)])


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    merges.take_small_steps(monkeypatch)


def attempt(made: Schedule, out: Path, on_progress: Callable[[Progress], None] | None = None) -> ExecutionReport:
    """One attempt at a merge, as `pymerge.merge` makes it."""
    out.mkdir(exist_ok=True)
    with claim(out) as journal:
        journal.begin(IDENTITY)
        return execute(made, out, journal=journal, on_progress=on_progress)


def stop_at(nbytes: int) -> Callable[[Progress], None]:
    """Something like Ctrl-C, once so many bytes are written."""

    def stop(progress: Progress) -> None:
        if progress.written >= nbytes:
            raise KeyboardInterrupt

    return stop


def slow(made_of: list[Path], method: str = "linear", **options: Any) -> Schedule:
    """A merge that reports progress after every few blocks."""
    return schedule(make_recipe(method, made_of, dtype="float32"), threads=1, buffers=1, **options)


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != JOURNAL}


@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_merge_ends_with_the_bytes_of_one_that_was_not(
    tmp_path: Path, models: list[Path], method: str
) -> None:
    made = slow(models, method, shard_size=100_000)
    whole = attempt(made, tmp_path / "whole")
    out = tmp_path / "out"
    total, kept = sum(shard.size for shard in made.shards), -1
    for part in (0.3, 0.6):
        with pytest.raises(KeyboardInterrupt) as caught:
            attempt(made, out, stop_at(int(total * part)))
        assert not list(out.glob("*.json"))
        found = int(caught.value.__notes__[0].split()[0])
        assert f"of {len(made.plan.tasks)} tensors are kept in {out}: run the same command" in caught.value.__notes__[0]
        assert found > kept
        kept = found
    report = attempt(made, out)
    assert report.kept > total * 0.3
    assert report.written < total * 0.8
    assert weights(out) == weights(tmp_path / "whole")
    assert report.digests == whole.digests


def stopped(made: Schedule, out: Path, part: float = 0.7) -> list[str]:
    """A merge stopped at some part of its bytes; the tensors that its journal has."""
    with pytest.raises(KeyboardInterrupt):
        attempt(made, out, stop_at(int(sum(shard.size for shard in made.shards) * part)))
    with claim(out) as journal:
        return list(journal.recorded)


def test_what_is_kept_is_not_read_again(tmp_path: Path, models: list[Path]) -> None:
    made = slow(models)
    whole = attempt(made, tmp_path / "whole")
    names = stopped(made, tmp_path / "out")
    kept = sum(sum(source.nbytes for source in task.sources) for task in made.plan.tasks if task.name in names)
    seen: list[Progress] = []
    report = attempt(made, tmp_path / "out", seen.append)
    assert report.read == whole.read - kept
    # Whole pages of it count as written from the start.
    assert seen[-1].written == sum(shard.size for shard in made.shards)
    assert all(a.written <= b.written for a, b in pairwise(seen))


@pytest.mark.parametrize("part", [0.0, 0.5, 0.999])
def test_a_byte_that_changed_costs_its_tensor_and_no_other(tmp_path: Path, models: list[Path], part: float) -> None:
    made = slow(models)
    attempt(made, tmp_path / "whole")
    out = tmp_path / "out"
    names = stopped(made, out)
    tasks = made.plan.tasks
    places = {tasks[place.task].name: place for place in made.shards[0].placements if place.nbytes}
    name = max((name for name in names if name in places), key=lambda name: places[name].nbytes)
    path = next(out.glob(".model*.partial"))
    with path.open("r+b") as file:
        at = places[name].offset + int(places[name].nbytes * part)
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    kept = sum(places[other].nbytes for other in names if other in places and other != name)
    report = attempt(made, out)
    assert kept - 2 * 4096 * len(names) <= report.kept <= kept
    assert weights(out) == weights(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["missing", "empty", "half", "longer", "other", "zeros"])
def test_whatever_became_of_the_file_the_bytes_are_right(tmp_path: Path, models: list[Path], damage: str) -> None:
    made = slow(models, "ties")
    attempt(made, tmp_path / "whole")
    out = tmp_path / "out"
    stopped(made, out)
    path = next(out.glob(".model*.partial"))
    size = path.stat().st_size
    if damage == "missing":
        path.unlink()
    elif damage in ("empty", "half", "longer"):
        os.truncate(path, {"empty": 0, "half": size // 2, "longer": size + 5000}[damage])
    else:
        path.write_bytes(bytes(size) if damage == "zeros" else np.random.default_rng(1).bytes(size))
    report = attempt(made, out)
    assert (report.kept > 0) == (damage in ("half", "longer"))
    assert weights(out) == weights(tmp_path / "whole")


def test_what_turned_out_to_be_lost_is_not_said_to_be_kept(tmp_path: Path, models: list[Path]) -> None:
    made = slow(models)
    out = tmp_path / "out"
    names = stopped(made, out)
    path = next(out.glob(".model*.partial"))
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(KeyboardInterrupt) as caught:
        attempt(made, out, stop_at(1))
    (note,) = getattr(caught.value, "__notes__", ["0 of"])
    assert int(note.split()[0]) < len(names) // 2


def test_a_finished_file_is_kept_under_either_name(tmp_path: Path, models: list[Path]) -> None:
    made = slow(models, shard_size=40_000)
    attempt(made, tmp_path / "whole")
    out = tmp_path / "out"
    stopped(made, out, 0.9)
    finished = sorted(out.glob("model-*.safetensors"))
    assert len(finished) >= 2
    # A power cut may have lost the renaming.
    finished[0].rename(out / f".{finished[0].name}.partial")
    report = attempt(made, out)
    assert report.kept > 0.5 * sum(path.stat().st_size for path in finished)
    assert weights(out) == weights(tmp_path / "whole")


def test_inputs_that_changed_during_the_merge_leave_nothing_to_keep(tmp_path: Path) -> None:
    folders = merges.write_models(tmp_path, [random_tensors(seed) for seed in range(4)])
    made = slow(folders)
    out = tmp_path / "out"
    stopped(made, out)

    def touch(_: Progress) -> None:
        os.utime(folders[0] / "model.safetensors", ns=(0, 1))

    with pytest.raises(Exception, match="changed since the merge was planned"):
        attempt(made, out, touch)
    assert not list(out.glob("*.safetensors*"))
    assert not list(out.glob(".*.partial"))


def test_every_tensor_is_digested_as_it_is_on_the_disk(tmp_path: Path, models: list[Path]) -> None:
    made = schedule(make_recipe("dare_ties", models), shard_size=50_000)
    report = attempt(made, tmp_path / "out")
    assert sorted(report.digests) == sorted(task.name for task in made.plan.tasks)
    for shard in made.shards:
        data = (tmp_path / "out" / shard.name).read_bytes()
        for place in shard.placements:
            name = made.plan.tasks[place.task].name
            assert report.digests[name] == digest(data[place.offset : place.offset + place.nbytes]), name


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 100, 4095, 4096, 4097, 9000, 20_000]), st.booleans()), min_size=1, max_size=12
    ),
    st.sampled_from([4096, 8192, 65_536]),
    st.booleans(),
)
def test_any_segments_may_be_kept(
    tmp_path_factory: pytest.TempPathFactory, segments: list[tuple[int, bool]], block: int, direct: bool
) -> None:
    folder = tmp_path_factory.mktemp("kept")
    sizes = [100, *(size for size, _ in segments)]
    offsets = [sum(sizes[:at]) for at in range(len(sizes))]
    data = np.random.default_rng(3).integers(1, 255, sum(sizes), np.uint8).tobytes()
    kept = [at for at, (size, keep) in enumerate(segments, 1) if keep and size]
    there = bytearray(len(data))
    for at in kept:
        there[offsets[at] : offsets[at] + sizes[at]] = data[offsets[at] : offsets[at] + sizes[at]]
    (folder / "partial").write_bytes(there)
    engine = _core.Engine(threads=2, block=block, buffers=2, writers=2, direct=direct, stop_on_nonfinite=True)
    ranges = list(zip(offsets, sizes, strict=True))
    shard = engine.open_shard(str(folder / "partial"), str(folder / "whole"), ranges, [], kept)
    others = [at for at in range(len(sizes)) if at not in kept]
    for at in reversed(others):
        engine.fill_bytes(shard, at, data[offsets[at] : offsets[at] + sizes[at]])
    while engine.status()["shards_finished"] == 0:
        engine.wait(0.05)
    told = {segment: found for _, segment, found in engine.take_written()}
    engine.stop()
    engine.close()
    assert (folder / "whole").read_bytes() == data
    assert told == {at: digest(data[offsets[at] : offsets[at] + sizes[at]]) for at in others}
