"""The page on adding a method, followed to the letter: what it shows is all that a method takes."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from typer.testing import CliRunner

import pymerge
from pymerge import methods
from pymerge.cli import app
from pymerge.errors import RecipeError

PAGE = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILE, EXAMPLE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(autouse=True)
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The file of the page, where methods are looked for."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "lerp.py").write_text(FILE, encoding="utf-8")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path / "more")])
    methods._registry.cache_clear()
    yield
    methods._registry.cache_clear()
    sys.modules.pop("pymerge.methods.lerp", None)


def test_it_costs_less_than_25_lines() -> None:
    assert len(FILE.splitlines()) + len(EXAMPLE.splitlines()) < 25


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_the_example_of_the_page_holds(backend: str) -> None:
    method, tensors, base, parameters, expected = ast.literal_eval(EXAMPLE)
    arrays = [np.array(tensor, np.float32) for tensor in (*tensors, base)]
    merged = pymerge.merge_tensors(method, arrays[:-1], base=arrays[-1], parameters=parameters, backend=backend)
    assert merged.tolist() == expected


def make_recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    """Two checkpoints and the recipe that puts one a quarter of the way to the other."""
    for seed, name in enumerate(("base", "one")):
        toys.write_llama(folder / name, seed=seed)
    recipe = {
        "merge_method": "lerp",
        "base_model": str(folder / "base"),
        "models": [{"model": str(folder / "one")}],
        "parameters": {"t": [{"filter": "mlp", "value": [0, 1]}, {"value": 0.25}]},
    }
    return {**recipe, **changes}


def test_recipes_have_it_with_filters_and_gradients(tmp_path: Path) -> None:
    files = {}
    for backend in ("cpu", "reference"):
        out = tmp_path / backend
        pymerge.merge(make_recipe(tmp_path), out, backend=backend)
        files[backend] = (out / "model.safetensors").read_bytes()
    assert files["cpu"] == files["reference"]
    inputs = {task.name: task.inputs for task in pymerge.plan(make_recipe(tmp_path)).tasks}
    shares = [inputs[f"model.layers.{layer}.mlp.up_proj.weight"] for layer in (0, 3)]
    assert [found.values["t"] for found in shares if found] == [0, 1]


def test_its_mistakes_are_found_before(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="lerp: t = 2 must be in"):
        pymerge.plan(make_recipe(tmp_path, parameters={"t": 2}))
    models = [{"model": str(tmp_path / name)} for name in ("one", "one")]
    with pytest.raises(RecipeError, match="lerp"):
        pymerge.plan(make_recipe(tmp_path, models=models, parameters={"t": 1}))


def test_the_command_line_shows_it() -> None:
    shown = CliRunner().invoke(app, ["methods", "lerp"])
    assert shown.exit_code == 0
    assert "Y = (1 - t) B + t X" in shown.stdout
    assert "merge_method: lerp" in shown.stdout
