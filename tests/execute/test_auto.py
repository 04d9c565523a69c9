"""`--backend auto` on merges: nothing is measured without a GPU, and what is taken is told with its reason."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import toys
from execute import merges
from typer.testing import CliRunner

import pymerge
from pymerge.backends.choice import Choice, DeviceFigures, Work
from pymerge.cli import app
from pymerge.errors import BackendError, ResourceError
from pymerge.execute import auto, expect, probe, run
from pymerge.execute.lanes import bytes_needed
from pymerge.plan.costs import count_costs
from pymerge.schedule import Schedule, make_schedule

LINEAR = {"merge_method": "linear", "models": [{"model": "a"}, {"model": "b"}], "parameters": {"weight": 1}}
TIES = {
    "merge_method": "ties",
    "base_model": "base",
    "models": [{"model": "a"}, {"model": "b"}],
    "parameters": {"weight": 1, "density": 0.5},
}
COPY = {"merge_method": "passthrough", "models": [{"model": "a"}]}
#: Much faster than any merge needs, and there at once.
QUICK = DeviceFigures(into=1e15, out=1e15, copy=1e15, start=0.0, memory=80e9)
#: What a merge of minutes is on processors.
LONG = Work(1 << 40, 1 << 40, 1 << 39, compute_seconds=1e4, read_cost=1e-15, write_cost=1e-15, threads=2)


@pytest.fixture(autouse=True)
def models(here: Path) -> None:
    for name in ("base", "a", "b"):
        toys.write_llama(here / name)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A GPU of QUICK's figures, for merges of any size, which are LONG; the list has what was measured."""
    measured: list[str] = []

    def load(device: str, measure: Any) -> DeviceFigures:
        measured.append(device)
        return QUICK

    monkeypatch.setattr(auto, "find_devices", lambda: ["a GPU, its driver"])
    monkeypatch.setattr(auto, "load_figures", load)
    monkeypatch.setattr(auto, "SMALL", 0)
    monkeypatch.setattr(auto, "resolve_backend", lambda name: name)
    monkeypatch.setattr(expect, "count_work", lambda *_: LONG)
    return measured


def schedule(recipe: dict[str, Any]) -> Schedule:
    return make_schedule(pymerge.plan(recipe), threads=2)


def test_without_a_gpu_nothing_is_chosen_or_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "find_devices", list)
    monkeypatch.setattr(auto, "count_costs", None)
    monkeypatch.setattr(expect, "count_work", None)
    assert auto.choose_backend(schedule(LINEAR)) is None


def test_a_merge_on_processors_loads_neither_arrays_nor_torch(here: Path) -> None:
    (here / "r.yml").write_text(json.dumps(LINEAR))
    code = "import sys, pymerge; pymerge.merge('r.yml', 'out')\nprint({'numpy', 'torch', 'triton'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_small_merges_and_copies_ask_no_gpu(gpu: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "SMALL", 1 << 30)
    for recipe in (LINEAR, COPY):
        choice = auto.choose_backend(schedule(recipe))
        assert choice is not None
        assert choice.backend == "cpu"
    assert gpu == []


def test_a_gpu_that_is_faster_is_taken(gpu: list[str]) -> None:
    choice = auto.choose_backend(schedule(TIES))
    assert choice == Choice("cuda", "about 83 min expected of the processors, under 1 s of cuda")
    assert gpu == ["a GPU, its driver"]


def test_the_backend_is_one_that_can_run(gpu: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(name: str) -> str:
        if name == "cuda":
            raise BackendError("built without CUDA kernels")
        return name

    monkeypatch.setattr(auto, "resolve_backend", resolve)
    choice = auto.choose_backend(schedule(TIES))
    assert choice is not None
    assert choice.backend == "triton"


def test_where_no_backend_can_run_the_processors_merge_and_it_is_said(
    gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> str:
        raise BackendError(f"{name}: torch cannot be imported")

    monkeypatch.setattr(auto, "resolve_backend", refuse)
    choice = auto.choose_backend(schedule(TIES))
    assert choice is not None
    assert choice.backend == "cpu"
    assert choice.reason.endswith("no GPU is used: triton: torch cannot be imported")


def test_a_gpu_whose_measurement_fails_does_not_stop_a_merge(gpu: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(device: str, measure: Any) -> DeviceFigures:
        raise RuntimeError("CUDA error: no kernel image\nmore")

    monkeypatch.setattr(auto, "load_figures", fail)
    choice = auto.choose_backend(schedule(TIES))
    assert choice is not None
    assert choice.reason.endswith("no GPU is used: CUDA error: no kernel image")


def test_kept_figures_of_a_slow_device_need_no_backend(gpu: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "load_figures", lambda *_: replace(QUICK, start=1e6))
    monkeypatch.setattr(auto, "resolve_backend", None)
    choice = auto.choose_backend(schedule(TIES))
    assert choice is not None
    assert choice.backend == "cpu"


def test_what_auto_takes_merges_and_is_told(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    monkeypatch.setattr(run, "choose_backend", lambda _: Choice("reference", "because of a test"))
    (here / "r.yml").write_text(json.dumps(TIES))
    answer = CliRunner().invoke(app, ["merge", "r.yml", "auto"])
    assert answer.exit_code == 0, answer.output
    assert "merged by reference: because of a test" in answer.stderr
    report = pymerge.merge("r.yml", "named", backend="cpu")
    assert (report.execution.backend, report.execution.reason) == ("cpu", "")
    assert (here / "auto/model.safetensors").read_bytes() == (here / "named/model.safetensors").read_bytes()


def test_the_plan_tells_each_choice(gpu: list[str], here: Path) -> None:
    (here / "r.yml").write_text(json.dumps(TIES))
    shown = CliRunner().invoke(app, ["plan", "r.yml"]).stdout
    assert "time     about 83 min by cpu, under 1 s by cuda (files as fast as memory)" in shown.splitlines()
    facts = json.loads(CliRunner().invoke(app, ["plan", "r.yml", "--format", "json"]).stdout)
    assert set(facts["seconds"]) == {"cpu", "cuda"}
    # 0.8 of the device, 0.85 of that for tensors.
    assert "GPU      room for every tensor, 54.4 GB" in shown.splitlines()
    assert (facts["room"], facts["no_room"]) == (54_400_000_000, 0)


def test_the_plan_tells_what_has_no_room_on_a_gpu(here: Path) -> None:
    (here / "r.yml").write_text(json.dumps(TIES))
    needs = sorted(bytes_needed(task) for task in pymerge.plan(TIES).tasks)
    large = sum(need == needs[-1] for need in needs)
    for vram, without in [(needs[-1] / 0.85 + 2, 0), (needs[-1] / 0.85 - 2, large), (1, len(needs))]:
        facts = json.loads(
            CliRunner().invoke(app, ["plan", "r.yml", "--vram", f"{vram:.0f}", "--format", "json"]).stdout
        )
        assert facts["no_room"] == without
    told = CliRunner().invoke(app, ["plan", "r.yml", "--vram", f"{needs[-1] / 0.85 - 2:.0f}"]).stdout
    assert re.search(rf"^GPU +.*, too little for {large} tensors?, which the processors merge$", told, re.MULTILINE)
    # What is copied goes to no GPU.
    (here / "copy.yml").write_text(json.dumps(COPY))
    facts = json.loads(CliRunner().invoke(app, ["plan", "copy.yml", "--vram", "1", "--format", "json"]).stdout)
    assert facts["no_room"] == 0
    # Without a GPU, and unasked, nothing is said of one.
    assert "GPU" not in CliRunner().invoke(app, ["plan", "r.yml"]).stdout


def test_work_has_the_bytes_of_the_plan() -> None:
    planned = schedule(TIES)
    costs = count_costs(planned.plan)
    work = expect.count_work(planned, costs)
    size = sum(tensor.nbytes for tensor in planned.plan.models[0].tensors.values())
    assert (work.loaded, work.read, work.written) == (3 * size, costs.read, costs.written)
    assert min(work.compute_seconds, work.read_cost, work.write_cost) > 0


@pytest.mark.parametrize("method", merges.METHODS)
def test_every_method_can_be_timed_whatever_its_tensors_are(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expect, "_TIMED", 99)
    folders = merges.write_models(tmp_path, [merges.random_tensors(seed) for seed in range(4)])
    planned = merges.schedule(merges.make_recipe(method, folders, dtype="float32"))
    assert expect.count_work(planned, count_costs(planned.plan)).compute_seconds > 0


def test_threads_beyond_the_processors_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expect, "usable_processors", lambda: 3)
    planned = make_schedule(pymerge.plan(LINEAR), threads=64)
    assert expect.count_work(planned, count_costs(planned.plan)).threads == 3


def test_what_is_shared_is_not_counted() -> None:
    planned = schedule(COPY)
    costs = count_costs(planned.plan)
    work = expect.count_work(planned, costs, shared=costs.written)
    assert (work.loaded, work.read, work.written, work.compute_seconds) == (0, 0, 0, 0)


def test_tasks_are_of_a_kind_that_ask_for_the_same() -> None:
    kinds = expect.group_tasks(schedule(TIES).plan)
    assert [(method.name, len(tasks)) for method, tasks in kinds] == [("ties", 39)]
    two = {**LINEAR, "parameters": {"weight": [{"filter": "mlp", "value": 0.3}, {"value": 1}]}}
    assert len(expect.group_tasks(schedule(two).plan)) == 1
    assert expect.group_tasks(schedule(COPY).plan) == []


def test_stages_that_are_made_while_they_are_read_are_computed_too() -> None:
    later = {**TIES, "models": [{"model": "blend"}, {"model": "b"}]}
    recipe = "\n---\n".join(json.dumps(each) for each in ({"name": "blend", **LINEAR}, later))
    kinds = expect.group_tasks(pymerge.plan(recipe))
    assert sorted((method.name, len(tasks)) for method, tasks in kinds) == [("linear", 39), ("ties", 39)]


def test_every_kind_that_is_not_run_costs_what_the_first_does(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = schedule(LINEAR)
    tasks = planned.plan.tasks
    monkeypatch.setattr(expect, "group_tasks", lambda plan: [(plan.method, [task]) for task in tasks])
    monkeypatch.setattr(expect, "time_task", lambda method, task, threads: 2.0 if task is tasks[0] else 1.0)
    costs = count_costs(planned.plan)
    expected = 2.0 * tasks[0].count + tasks[1].count + tasks[2].count + 2.0 * sum(t.count for t in tasks[3:])
    assert expect.count_work(planned, costs).compute_seconds == pytest.approx(expected)


def test_no_memory_for_a_file_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(probe, "_open_in_memory", refuse)
    with pytest.raises(ResourceError, match="how fast memory is: Cannot allocate memory"):
        probe.time_file()
