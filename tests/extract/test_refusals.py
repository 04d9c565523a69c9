"""What extraction refuses, and that nothing that looks like an adapter is left behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys

import pymerge
from pymerge.errors import NonFiniteError, PymergeError, RecipeError, ResourceError, ShapeError

Q = "model.layers.0.self_attn.q_proj.weight"
SHAPE = {"layers": 2, "width": 16, "vocabulary": 24}


def write(folder: Path, changes: dict[str, Any] | None = None, **extra: Any) -> None:
    drop = [name for name, tensor in (changes or {}).items() if tensor is None]
    kept = {name: tensor for name, tensor in (changes or {}).items() if tensor is not None}
    toys.write_llama(folder, extra={**extra, **kept}, drop=drop, **SHAPE)


def write_pair(here: Path, changes: dict[str, Any] | None = None) -> None:
    write(here / "base")
    write(here / "tuned", {Q: np.ones((16, 16), np.float32)} if changes is None else changes)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_rank": 0}, "--max-rank 0"),
        ({"energy": 0.0}, "--energy 0.0"),
        ({"energy": 1.5}, "--energy 1.5"),
        ({"sv_epsilon": -1.0}, "--sv-epsilon"),
        ({"sv_epsilon": float("nan")}, "--sv-epsilon"),
        ({"method": "magic"}, "auto, randomized or exact"),
        ({"dtype": "int8"}, "--dtype int8"),
        ({"dtype": "float64"}, "--dtype float64"),
        ({"include": ["("]}, "no regular expression"),
        ({"include": ["qq_proj"]}, "--include-regex qq_proj matches no module"),
        ({"exclude": ["vision"]}, "--exclude-regex vision matches no module"),
        ({"save_modules": ["down"]}, "--save-module down is no module"),
    ],
)
def test_options_that_cannot_work(here: Path, options: dict[str, Any], said: str) -> None:
    write_pair(here)
    with pytest.raises(RecipeError, match=said.replace("(", r"\(")):
        pymerge.extract_lora("tuned", "base", "lora", **options)
    assert not (here / "lora").exists()


def test_all_mistakes_are_told_at_once(here: Path) -> None:
    write_pair(here)
    with pytest.raises(RecipeError) as caught:
        pymerge.extract_lora("tuned", "base", "lora", max_rank=0, include=["nothing"], save_modules=["none"])
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({Q: np.ones((8, 16), np.float32)}, ShapeError, r"\[8, 16\] in the model and \[16, 16\]"),
        ({"model.layers.0.q_norm.weight": np.ones(4, np.float32)}, RecipeError, "the base has no"),
        ({Q: np.full((16, 16), np.nan, np.float32)}, NonFiniteError, "not finite at element 0"),
        ({}, RecipeError, "no matrix .* differs .*nothing to extract"),
        ({"model.norm.weight": np.zeros(16, np.float32)}, RecipeError, "only model.norm; PEFT loads no adapter"),
    ],
)
def test_models_that_give_no_adapter(here: Path, changes: dict[str, Any], kind: type[PymergeError], said: str) -> None:
    write_pair(here, changes)
    with pytest.raises(kind, match=said):
        pymerge.extract_lora("tuned", "base", "lora")
    assert not (here / "lora").exists()


@pytest.mark.parametrize("value", [np.zeros((2, 8, 16), np.float32), np.zeros((2, 8, 16), np.int32)])
def test_what_no_adapter_can_hold_is_refused_where_it_differs(here: Path, value: np.ndarray) -> None:
    name = "model.layers.0.mlp.experts.gate_up_proj"
    write(here / "base", {name: value + 1})
    write(here / "tuned", {name: value, Q: np.ones((16, 16), np.float32)})
    write(here / "same", {name: value + 1, Q: np.ones((16, 16), np.float32)})
    with pytest.raises(RecipeError, match=rf'"{name}".* differs, and no adapter'):
        pymerge.extract_lora("tuned", "base", "lora")
    report = pymerge.extract_lora("tuned", "base", "skipped", exclude=["experts"])
    assert name in report.left_out
    assert name in pymerge.extract_lora("same", "base", "lora").equal


def test_fused_experts_are_skipped_with_all_that_is_no_matrix(here: Path) -> None:
    name = "model.layers.0.mlp.experts.gate_up_proj"
    write(here / "base", {name: np.zeros((2, 8, 16), np.float32)})
    write(here / "tuned", {name: np.ones((2, 8, 16), np.float32), Q: np.ones((16, 16), np.float32)})
    report = pymerge.extract_lora("tuned", "base", "lora", skip_undecomposable=True)
    assert report.left_out[name] == "--skip-undecomposable: a parameter that is no module's weight"
    assert any("experts" in warning for warning in report.warnings)


def test_a_matrix_that_memory_does_not_hold_is_named(here: Path) -> None:
    write_pair(here)
    with pytest.raises(ResourceError, match=r"model\.layers\.\d\..* takes .* --memory is 1,000"):
        pymerge.extract_lora("tuned", "base", "lora", memory=1000)


def test_factors_that_overflow_are_refused(here: Path) -> None:
    write_pair(here, {Q: np.full((16, 16), 1e30, np.float32)})
    with pytest.raises(NonFiniteError, match="--dtype float32"):
        pymerge.extract_lora("tuned", "base", "lora", dtype="float16")


@pytest.mark.parametrize("base", ["tuned", "nowhere", "a@b@c"])
def test_models_that_cannot_be(here: Path, base: str) -> None:
    write_pair(here)
    with pytest.raises(RecipeError):
        pymerge.extract_lora("tuned", base, "lora")


@pytest.mark.parametrize("out", ["base", "tuned", "file"])
def test_an_output_that_is_something_else(here: Path, out: str) -> None:
    write_pair(here)
    (here / "file").write_text("")
    with pytest.raises(RecipeError, match="name another one"):
        pymerge.extract_lora("tuned", "base", out, overwrite=True)


def test_a_failure_leaves_the_adapter_that_was_there(here: Path) -> None:
    write_pair(here)
    pymerge.extract_lora("tuned", "base", "lora")
    before = {path.name: path.read_bytes() for path in (here / "lora").iterdir()}
    toys.write_llama(here / "bad", extra={Q: np.full((16, 16), np.inf, np.float32)}, **SHAPE)
    with pytest.raises(NonFiniteError):
        pymerge.extract_lora("bad", "base", "lora", overwrite=True)
    assert {path.name: path.read_bytes() for path in (here / "lora").iterdir()} == before


def test_two_runs_do_not_write_into_one_folder(here: Path) -> None:
    from pymerge.extract.write import AdapterWriter

    write_pair(here)
    (here / "lora").mkdir()
    with AdapterWriter(here / "lora", ()), pytest.raises(ResourceError, match="another run"):
        pymerge.extract_lora("tuned", "base", "lora")
    pymerge.extract_lora("tuned", "base", "lora")


def test_a_killed_run_leaves_nothing_that_looks_like_an_adapter(here: Path) -> None:
    write_pair(here)
    code = (
        "import pymerge, signal, os\n"
        "def die(step):\n    if step.startswith('5'): os.kill(os.getpid(), signal.SIGKILL)\n"
        "pymerge.extract_lora('tuned', 'base', 'lora', on_step=die)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    assert os.listdir(here / "lora") == [".adapter_model.safetensors.partial"]
    assert pymerge.extract_lora("tuned", "base", "lora").rank == 16


def test_a_full_disk_is_told_and_leaves_nothing(here: Path) -> None:
    write_pair(here)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(ResourceError, match="cannot be written"):
            pymerge.extract_lora("tuned", "base", "lora")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (here / "lora").exists()


def test_a_folder_whose_name_is_too_long_is_refused(here: Path) -> None:
    write_pair(here)
    with pytest.raises(ResourceError, match=r"output folder a+ cannot be made: File name too long"):
        pymerge.extract_lora("tuned", "base", "a" * 300)
