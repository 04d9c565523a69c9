"""What a merge tells while it runs and afterwards, and the files as the system sees them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from execute import merges
from execute.merges import make_recipe, random_tensors, schedule

from pymerge import _core
from pymerge.execute import ExecutionReport, Progress, execute
from pymerge.execute.usage import name_limit
from pymerge.schedule import Schedule


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Schedule:
    """A merge in three passes (select, masked sum, combine) of all inputs, into several files."""
    folder = tmp_path_factory.mktemp("models")
    models = merges.write_models(folder, [random_tensors(seed, np.float32) for seed in range(3)])
    recipe = make_recipe("ties", models, dtype="float32")
    recipe["parameters"] = {"rescale": True}
    return schedule(recipe, shard_size=20_000)


def execute_in(folder: Path, made: Schedule) -> tuple[ExecutionReport, list[Progress]]:
    folder.mkdir()
    seen: list[Progress] = []
    return execute(made, folder, on_progress=seen.append), seen


def test_progress_never_goes_back_and_ends_at_the_total(tmp_path: Path, made: Schedule) -> None:
    report, seen = execute_in(tmp_path / "out", made)
    total = sum(shard.size for shard in made.shards)
    assert {each.total for each in seen} == {total}
    for name in ("seconds", "read", "written"):
        values = [getattr(each, name) for each in seen]
        assert values == sorted(values)
    assert seen[-1].written == total == report.written
    assert seen[-1].read == report.read
    assert seen[-1].tensor in {task.name for task in made.plan.tasks}


def test_the_report_is_of_this_merge(tmp_path: Path, made: Schedule) -> None:
    report, _ = execute_in(tmp_path / "out", made)
    once = sum(source.nbytes for task in made.plan.tasks for source in task.sources)
    assert report.read == 3 * once
    assert report.written == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert report.seconds > 0
    assert report.cpu_seconds > 0
    assert report.limit in ("reading", "computing", "writing")
    assert report.direct == _core.probe_direct_io(str(tmp_path))[0]
    assert report.nonfinite == {}
    if Path("/proc/self/status").exists():
        assert 0 < report.peak_anonymous <= report.peak_resident


def test_columns_of_their_own_scale_cost_no_further_pass(tmp_path: Path) -> None:
    """The sample by which a select knows where to look must see all columns, whatever a row's length."""
    base = np.zeros((1024, 2048), np.float32)
    tuned = np.random.default_rng(0).standard_normal(base.shape, np.float32)
    tuned[:, :64] *= 50
    models = merges.write_models(tmp_path, [{"layers.0.weight": base}, {"layers.0.weight": tuned}])
    recipe = make_recipe("ties", models, dtype="float32")
    recipe["models"][0]["parameters"] = {"weight": 1.0, "density": 0.5}
    report, _ = execute_in(tmp_path / "out", schedule(recipe))
    assert report.read == 2 * 2 * base.nbytes


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_get_the_mode_that_the_umask_asks_for(tmp_path: Path, made: Schedule, umask: int) -> None:
    before = os.umask(umask)
    try:
        execute_in(tmp_path / "out", made)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").glob("*.safetensors")} == {0o666 & ~umask}


def test_an_unfinished_file_has_a_temporary_name(tmp_path: Path, made: Schedule) -> None:
    names: list[list[str]] = []
    folder = tmp_path / "out"
    folder.mkdir()
    engine = _core.Engine(threads=1, block=4096, buffers=1, writers=1, direct=False, stop_on_nonfinite=True)
    engine.open_shard(str(folder / ".a.partial"), str(folder / "a"), [(0, 4096), (4096, 4096)])
    engine.fill_bytes(0, 0, b"x" * 4096)
    names.append(os.listdir(folder))
    engine.fill_bytes(0, 1, b"y" * 4096)
    merges.wait_for(engine, shards=1)
    names.append(os.listdir(folder))
    engine.stop()
    assert names == [[".a.partial"], ["a"]]
    assert (folder / "a").read_bytes() == b"x" * 4096 + b"y" * 4096


def test_an_older_temporary_file_is_written_over(tmp_path: Path, made: Schedule) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    for shard in made.shards:
        (folder / f".{shard.name}.partial").write_bytes(b"left by a killed merge" * 9999)
    execute(made, folder)
    assert {path.name: path.stat().st_size for path in folder.iterdir()} == {s.name: s.size for s in made.shards}


@pytest.mark.parametrize(
    ("busy", "cpu", "from_disk", "limit"),
    [
        (0.2, 0.2, 0.0, "writing"),
        (0.9, 0.9, 0.9, "computing"),
        (0.9, 0.2, 0.9, "reading"),
        (0.9, 0.2, 0.0, "computing"),
    ],
)
def test_the_limit_is_named_by_what_the_workers_waited_for(
    busy: float, cpu: float, from_disk: float, limit: str
) -> None:
    assert name_limit(busy, cpu, 1.0, from_disk) == limit


def test_a_probe_leaves_nothing_and_explains_itself(tmp_path: Path) -> None:
    direct, why = _core.probe_direct_io(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert direct == (why == "")
    direct, why = _core.probe_direct_io(str(tmp_path / "nowhere"))
    assert not direct
    assert "No such file or directory" in why
