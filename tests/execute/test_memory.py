"""`--memory` is a promise: tensors larger than the budget are merged within it, to the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import toys
import yaml
from execute.merges import make_recipe
from safetensors.numpy import save_file
from skip_gate import limiting_cgroup

import pymerge
from pymerge import _core
from pymerge.schedule import make_schedule

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")

MIB = 1 << 20
#: What a 70B model's down projection has: 470 MB in bfloat16.
LARGE = (8192, 28672)
QUARTER = (2048, 28672)
BUDGET = 160 * MIB
#: Anonymous memory that the same merge may differ by, whatever the size: the allocator rounds and keeps.
NOISE = 6 * MIB

METHODS = (
    "passthrough",
    "linear",
    "slerp",
    "task_arithmetic",
    "ties",
    "ties-global",
    "dare_ties",
    "della",
    "breadcrumbs",
    "model_stock",
    "karcher",
    "nuslerp-rows",
    "nuslerp-columns",
    "arcee_fusion",
)


def write_models(folder: Path, shape: tuple[int, int], count: int) -> list[Path]:
    """A base and fine-tunes near it, of one tensor: a block of random numbers, again and again."""
    size = 1 << 22
    base = np.random.default_rng(0).standard_normal(size, np.float32) * 0.02
    folders = []
    for place in range(count):
        own = np.random.default_rng(place).standard_normal(size, np.float32) * (0.002 if place else 0)
        block = (base + own).astype(ml_dtypes.bfloat16).tobytes()
        header, length = toys.header_bytes({"layers.0.w.weight": ("BF16", shape)})
        made = folder / f"model{place}"
        made.mkdir(parents=True)
        (made / "config.json").write_text(json.dumps({"model_type": "toy", "num_hidden_layers": 1}))
        with (made / "model.safetensors").open("wb") as stream:
            stream.write(header)
            for at in range(0, length, len(block)):
                stream.write(block[: length - at])
        folders.append(made)
    return folders


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """Three models with a tensor of 470 MB each; they do not stay on the disk."""
    folder = tmp_path_factory.mktemp("large")
    models = write_models(folder, LARGE, 3)
    yield models
    for model in models:
        (model / "model.safetensors").unlink()


def run_limited(
    folder: Path, recipe: dict[str, Any] | str, memory: int, prepare: Callable[[], None] | None = None, threads: int = 2
) -> dict[str, int]:
    """Merge in a child process that calls `prepare` first; what the child held."""
    written, child = folder / "recipe.json", Path(__file__).parent / "limited.py"
    written.write_text(json.dumps(recipe))
    command = [sys.executable, str(child), str(written), str(folder / "out"), str(memory), str(threads)]
    # numpy's linear algebra, which no merge uses, would reserve 32 MiB a thread.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, preexec_fn=prepare, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answer: dict[str, int] = json.loads(done.stdout)
    return answer


def digest(folder: Path) -> str:
    """Of the weights; the file is removed, since the disk may be small."""
    path = folder / "model.safetensors"
    sums = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            sums.update(block)
    path.unlink()
    return sums.hexdigest()


def refuse_more() -> None:
    """Anonymous memory above the budget is refused by the system from now on, so that one lapse fails a merge.

    It counts what is reserved, such as stacks, which are made as small as they may be.
    """
    resource.setrlimit(resource.RLIMIT_STACK, (MIB, resource.getrlimit(resource.RLIMIT_STACK)[1]))
    resource.setrlimit(resource.RLIMIT_DATA, (BUDGET, BUDGET))


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_three_times_the_budget_is_merged_within_it(tmp_path: Path, large: list[Path], method: str) -> None:
    recipe = make_recipe(method, large)
    held = run_limited(tmp_path, recipe, BUDGET, refuse_more)
    assert held["resident"] <= BUDGET
    assert held["anonymous"] > 0
    assert abs(held["reported"] - held["resident"]) <= MIB
    assert held["reported_anonymous"] <= held["anonymous"] + MIB
    within = digest(tmp_path / "out")
    pymerge.merge(recipe, tmp_path / "free", memory=8 << 30)
    assert within == digest(tmp_path / "free")


def test_what_is_derived_while_it_is_read_is_within_the_budget(tmp_path: Path, large: list[Path]) -> None:
    rank = 16
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    random = np.random.default_rng(5)
    factors = {"A": (rank, LARGE[1]), "B": (LARGE[0], rank)}
    named = {
        f"base_model.model.layers.0.w.lora_{side}.weight": (random.standard_normal(shape) / 64).astype(
            ml_dtypes.bfloat16
        )
        for side, shape in factors.items()
    }
    save_file(named, adapter / "adapter_model.safetensors")
    adapted = f"{large[0]}+{adapter}"
    last = {"merge_method": "slerp", "base_model": adapted, "models": [{"model": "stage"}], "parameters": {"t": 0.3}}
    stage = {**make_recipe("ties", large), "name": "stage"}
    recipe = "---\n".join(yaml.safe_dump({**document, "dtype": "bfloat16"}) for document in (stage, last))
    held = run_limited(tmp_path, recipe, BUDGET, refuse_more)
    assert held["resident"] <= BUDGET
    within = digest(tmp_path / "out")
    pymerge.merge(recipe, tmp_path / "free", memory=8 << 30)
    assert within == digest(tmp_path / "free")


@pytest.mark.parametrize(("budget", "in_place"), [(160 * MIB, True), (90 * MIB, False), (56 * MIB, False)])
def test_the_budget_holds_whether_inputs_are_read_in_place_or_copied(
    tmp_path: Path, large: list[Path], budget: int, in_place: bool
) -> None:
    recipe = make_recipe("task_arithmetic", large)
    assert make_schedule(pymerge.plan(recipe), threads=2, memory=budget).resources.in_place == in_place
    held = run_limited(tmp_path, recipe, budget)
    assert held["resident"] <= budget
    (tmp_path / "out" / "model.safetensors").unlink()


def test_a_control_group_of_the_budget_is_enough(tmp_path: Path, large: list[Path]) -> None:
    group = limiting_cgroup(BUDGET)
    if group is None:
        pytest.skip("needs a memory cgroup")
    for model in large:
        # What is cached is not charged to the child: it must read everything itself.
        with (model / "model.safetensors").open("rb") as stream:
            os.fdatasync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    joined = str(group / "cgroup.procs")
    try:
        held = run_limited(tmp_path, make_recipe("ties", large), BUDGET, lambda: _write(joined, "0"))
    finally:
        group.rmdir()
    assert held["resident"] <= BUDGET
    assert (tmp_path / "out" / "config.json").exists()
    (tmp_path / "out" / "model.safetensors").unlink()


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as stream:
        stream.write(text)


def copies(models: Sequence[Path], folder: Path, times: int) -> list[Path]:
    """The base and `times` as many fine-tunes, which are other names of the same files."""
    made = [models[0]]
    for turn in range(times):
        for model in models[1:]:
            made.append(folder / f"{model.name}-{turn}")
            made[-1].mkdir()
            for file in model.iterdir():
                (made[-1] / file.name).symlink_to(file)
    return made


@pytest.mark.parametrize("method", ["linear", "dare_ties", "model_stock"])
def test_anonymous_memory_grows_neither_with_tensors_nor_with_models(
    tmp_path: Path, large: list[Path], method: str
) -> None:
    def hold(models: Sequence[Path], name: str, memory: int) -> int:
        folder = tmp_path / name
        folder.mkdir()
        recipe = make_recipe(method, models[:3])
        recipe["models"] = [{**recipe["models"][0], "model": str(model)} for model in models[1:]]
        held = run_limited(folder, recipe, memory, threads=1)
        (folder / "out" / "model.safetensors").unlink()
        return held["anonymous"]

    # A budget that leaves blocks of 512 KiB in each case: how many of the buffers are used is chance.
    small = write_models(tmp_path / "small", QUARTER, 3)
    one = hold(small, "one", 56 * MIB)
    assert abs(hold(large, "four", 56 * MIB) - one) <= NOISE
    assert abs(hold(copies(small, tmp_path, 2), "twice", 56 * MIB) - one) <= NOISE


def test_a_select_without_room_for_its_keys_finds_the_same_cuts() -> None:
    random = np.random.default_rng(5)
    base, tuned = (random.standard_normal(1_500_000, np.float32).astype(ml_dtypes.bfloat16) for _ in range(2))
    tensors = [_core.Tensor.from_buffer(array.view(np.uint16), "BF16") for array in (base, tuned)]
    counts, answers = [1, 150_000, 750_000, 1_500_000], []
    for gathered in (16 << 20, 64 << 10, 0):
        engine = _core.Engine(2, 4096, 1, 1, False, True, gathered)
        engine.measure_select(7, [tensors[1]] * len(counts), tensors[0], "float32", counts)
        done: list[Any] = []
        while not done:
            done = engine.wait(1.0)
        engine.stop()
        answers.append(done[0][1])
    assert answers[0] == answers[1] == answers[2]
