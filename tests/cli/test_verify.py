"""What `pymerge verify` prints, refuses, and ends with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import pytest
import toys
from typer.testing import CliRunner
from verify.outputs import MANIFEST, bf16, make_models, make_output, overwrite, stored

from pymerge.cli import app

NAME = "model.norm.weight"


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_output(tmp_path_factory.mktemp("merged"))


def run(*arguments: object, code: int) -> Any:
    """A run of `pymerge verify` that ends with `code`."""
    result = CliRunner().invoke(app, ["verify", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def test_a_good_output_ends_with_0_and_a_line_for_every_check(merged: Path) -> None:
    result = run(merged, code=0)
    for name in ("manifest", "files", "index", "config", "digests", "finite", "inputs", "recomputed"):
        assert any(line.split()[:2] == [name, "passed"] for line in result.stdout.splitlines())
    assert result.stderr.strip().endswith("passed")


def test_all_makes_every_tensor_again(merged: Path) -> None:
    found = json.loads(run(merged, "--all", "--format", "json", code=0).stdout)
    assert len(found["recomputed"]) == found_tensors(merged)
    assert all(tensor["differing"] == 0 for tensor in found["recomputed"])


def found_tensors(folder: Path) -> int:
    return len(json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"])


def test_a_damaged_output_ends_with_1_and_names_the_tensor(tmp_path: Path) -> None:
    out = make_output(tmp_path)
    overwrite(stored(out, NAME), 0, bf16(9))
    result = run(out, code=1)
    assert f"digests: {stored(out, NAME).name}" not in result.stderr
    assert f"{NAME}: holds other bytes than the merge wrote" in result.stdout
    assert result.stderr.strip().endswith("failed")


def test_what_cannot_be_checked_ends_with_6_unless_it_was_not_asked_for(tmp_path: Path) -> None:
    models = make_models(tmp_path)
    out = make_output(tmp_path, models=models)
    moved = models[0].rename(tmp_path / "moved")
    assert "not checked" in run(out, code=6).stdout
    run(out, "--sample", 0, code=0)
    run(out, "--model", f"{models[0]}={moved}", code=0)


def test_quiet_says_nothing_but_has_its_exit_code(merged: Path, tmp_path: Path) -> None:
    assert run(merged, "--format", "quiet", code=0).output == ""
    assert run(merged, tmp_path_model(tmp_path), "--format", "quiet", code=1).output == ""


def tmp_path_model(folder: Path) -> Path:
    return toys.write_llama(folder / "other", layers=2, seed=5, dtype=ml_dtypes.bfloat16)


def test_two_models_that_agree_end_with_0(merged: Path) -> None:
    assert "agree" in run(merged, merged, code=0).stderr


def test_two_models_that_differ_end_with_1_and_the_worst_tensor_first(merged: Path, tmp_path: Path) -> None:
    result = run(merged, tmp_path_model(tmp_path), code=1)
    assert result.stdout.splitlines()[0].split() == ["tensor", "dtype", "equal", "largest", "ulp", "apart", "relative"]
    compared = json.loads(run(merged, tmp_path / "other", "--format", "json", code=1).stdout)
    assert result.stdout.splitlines()[1].split()[0] == compared["differing"][0]


def test_a_tolerance_decides_the_exit_code(merged: Path, tmp_path: Path) -> None:
    run(merged, tmp_path_model(tmp_path), "--max-ulp", 10, code=1)
    run(merged, tmp_path / "other", "--max-ulp", 65_536, code=0)


@pytest.mark.parametrize("options", [["--all"], ["--sample", "2"], ["--model", "a=b"], ["--memory", "1GB"]])
def test_options_for_outputs_are_refused_where_two_models_are_compared(merged: Path, options: list[str]) -> None:
    assert options[0] in run(merged, merged, *options, code=2).stderr


@pytest.mark.parametrize("options", [["--max-ulp", "1"], ["--all", "--sample", "1"], ["--model", "nameonly"]])
def test_options_that_make_no_sense_are_refused(merged: Path, options: list[str]) -> None:
    run(merged, *options, code=2)


def test_a_folder_that_is_not_there_ends_with_2(tmp_path: Path) -> None:
    assert "no such folder" in run(tmp_path / "nowhere", code=2).stderr


def test_many_findings_are_counted_not_all_listed(tmp_path: Path) -> None:
    out = make_output(tmp_path, models=make_models(tmp_path, layers=4))
    manifest = json.loads((out / MANIFEST).read_text())
    manifest["digests"] = dict.fromkeys(manifest["digests"], "0" * 32)
    (out / MANIFEST).write_text(json.dumps(manifest))
    lines = run(out, "--sample", 0, code=1).stdout.splitlines()
    assert sum("other bytes" in line for line in lines) == 20
    assert f"and {found_tensors(out) - 20} more (--format json has all)" in lines
