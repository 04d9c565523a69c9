"""The bench of one recipe: real merges in fresh processes, stage by stage, and nothing left of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import toys
from typer.testing import CliRunner

from pymerge.bench import recipe as bench
from pymerge.bench.process import CommandFailedError
from pymerge.bench.recipe import bench_recipe
from pymerge.cli import app


@pytest.fixture
def recipe(here: Path) -> Path:
    """A recipe of two models that it names relative to the working directory, the second with a revision."""
    for name in ("first", "second"):
        toys.write_llama(here / name)
    (here / "recipe.yml").write_text(
        "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: first}, {model: second@main}]\n"
    )
    return here / "recipe.yml"


def test_stages_add_up_to_the_time_of_the_command(recipe: Path, here: Path) -> None:
    record = bench_recipe(recipe, here, rounds=1)
    assert list(record["stages"]) == ["start", "plan", "prepare", "merge", "finish"]
    assert sum(stage["median"] for stage in record["stages"].values()) == pytest.approx(record["ms"]["median"])
    assert (record["method"], record["rounds"], record["recipe"]) == ("linear", 1, "recipe.yml")
    assert sorted(path.name for path in here.iterdir()) == ["first", "recipe.yml", "second"]


def test_cold_merges_have_all_their_inputs_dropped(recipe: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[Path] = []
    monkeypatch.setattr(bench, "drop_caches", dropped.extend)
    bench_recipe(recipe, here, rounds=2, cold=True)
    assert dropped == [Path(name) / "model.safetensors" for name in ("first", "second")] * 2


def test_a_merge_that_fails_is_told_in_its_own_words_and_leaves_nothing(recipe: Path, here: Path) -> None:
    recipe.write_text(recipe.read_text().replace("linear", "liner"))
    with pytest.raises(CommandFailedError, match='no merge method "liner"'):
        bench_recipe(recipe, here)
    assert sorted(path.name for path in here.iterdir()) == ["first", "recipe.yml", "second"]


def test_the_command_passes_options_on_and_keeps_a_history(recipe: Path, here: Path) -> None:
    arguments = ["bench", "merge", str(recipe), "--rounds", "1", "--history", "h.jsonl", "--", "--threads", "1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()[3:9]] == [
        "start", "plan", "prepare", "merge", "finish", "wall",
    ]  # fmt: skip
    (kept,) = [json.loads(line) for line in (here / "h.jsonl").read_text().splitlines()]
    assert (kept["bench"], kept["options"]) == ("recipe", ["--threads", "1"])
    wrong = CliRunner().invoke(app, ["bench", "merge", str(recipe), "--out", "nowhere"])
    assert (wrong.exit_code, "is no folder" in wrong.stderr) == (2, True)
