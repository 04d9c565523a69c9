"""What `pymerge extract-lora` passes on, prints and writes."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from typer.testing import CliRunner

from pymerge import api_extract
from pymerge.cli import app
from pymerge.extract.values import Options

Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def models(here: Path) -> Path:
    """A base, and a model of which one matrix and one norm are others."""
    toys.write_llama(here / "base")
    changes = {f"{Q}.weight": np.ones((32, 32), np.float32), "model.norm.weight": np.ones(32, np.float32)}
    toys.write_llama(here / "tuned", extra=changes)
    return here


def run(*options: str) -> Any:
    """A successful run."""
    arguments = ["extract-lora", "--model", "tuned", "--base-model", "base", "--out-path", "lora", *options]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    return result


def test_the_folder_is_the_result_and_the_summary_is_not(models: Path) -> None:
    result = run("--max-rank", "4", "-e", "input_layernorm")
    assert result.stdout == "lora\n"
    assert "1 matrix of rank up to 4" in result.stderr
    assert "left out: model.layers.0.input_layernorm (--exclude-regex input_layernorm)" in result.stderr
    assert (models / "lora" / "adapter_config.json").exists()


def test_every_tensor_is_listed_where_that_is_asked_for(models: Path) -> None:
    shown = run("--max-rank", "4", "--tensors").stdout
    assert f"{Q}  " in shown
    assert "model.norm" in shown
    assert len(shown.splitlines()) == 2 + 39


def test_json_has_the_error_of_every_matrix(models: Path) -> None:
    report = json.loads(run("--format", "json", "--dtype", "float32").stdout)
    assert report["folder"] == "lora"
    assert report["whole"] == {"model.norm": "a vector"}
    (matrix,) = report["matrices"]
    assert matrix["module"] == Q
    assert matrix["error"] == pytest.approx(report["error"])


def test_quiet_is_silent(models: Path) -> None:
    result = run("--quiet")
    assert (result.stdout, result.stderr) == ("", "")


def test_a_dry_run_writes_nothing_and_says_what_would_be(models: Path) -> None:
    result = run("--dry-run", "--embed-lora", "--max-rank", "8")
    assert "30, rank up to 8; 0 by a sketch, 30 exactly" in result.stdout
    assert "9 if they differ" in result.stdout
    listed = run("--dry-run", "--tensors", "--include-regex", "mlp").stdout
    assert f"{Q}" in listed
    assert "no --include-regex matches" in listed
    assert not (models / "lora").exists()


def test_a_dry_run_bounds_what_is_written(models: Path) -> None:
    facts = json.loads(run("--dry-run", "--format", "json", "--max-rank", "8").stdout)
    run("--max-rank", "8")
    size = sum(each["size"] for each in facts["matrices"]) + sum(each["size"] for each in facts["whole"])
    assert facts["size"] == size
    assert (models / "lora" / "adapter_model.safetensors").stat().st_size < size
    assert max(each["max_rank"] for each in facts["matrices"]) == 8


def test_defaults_are_those_of_the_api(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(api_extract, "plan_lora", lambda *models, **settings: given.update(settings) or _stop())
    with pytest.raises(AssertionError):
        run("--dry-run")
    defaults = {name: each.default for name, each in inspect.signature(api_extract.extract_lora).parameters.items()}
    assert given.keys() >= set(Options.__slots__)
    assert all(value == defaults[name] for name, value in given.items())
    assert all(defaults[name] == getattr(Options(), name) for name in Options.__slots__)


def _stop() -> Any:
    raise RuntimeError


def test_the_command_of_the_peer_runs_unchanged(models: Path) -> None:
    run(
        "--no-distribute-scale",
        "--save-module",
        "lm_head",
        "--sv-epsilon",
        "0.1",
        "--no-embed-lora",
        "--cuda",
        "-i",
        "q_proj",
    )
    config = json.loads((models / "lora" / "adapter_config.json").read_text())
    assert config["target_modules"] == [Q]


def test_a_mistake_is_a_message_and_a_code(models: Path) -> None:
    arguments = ["extract-lora", "--model", "tuned", "--base-model", "base", "-o", "lora", "--energy", "2"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "--energy 2.0 is not a share" in result.stderr
