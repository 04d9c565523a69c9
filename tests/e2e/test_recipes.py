"""Published recipes, merged: toy models of the family, with as many layers as the real ones."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import toys
from plan.test_recipes import PUBLISHED, RECIPES
from safetensors.numpy import load_file

import pymerge
from pymerge.config import load_recipe
from pymerge.plan.sources import list_references

#: Recipes that stack layers and change nothing in them.
STACKED = ("goliath", "llama3", "megadolphin", "neuralpipe 9b", "solar one", "solar two")


def write_models(name: str) -> tuple[str, bool]:
    """The recipe's text and whether it needs lenience; its models are written to the working directory."""
    file, document, layout, _, lenient = PUBLISHED[name]
    text = (RECIPES / f"{file}.yml").read_text().split("\n---\n")[document] + "\n"
    for seed, ref in enumerate(list_references(load_recipe(text, lenient=True))):
        layers = 48 if ref.path.endswith("-11B") else toys.FULL_SIZE[layout]["layers"]
        toys.write_llama(Path(ref.path), seed=seed, layers=layers, width=8, vocabulary=24, dtype=ml_dtypes.bfloat16)
    return text, lenient


def read(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint."""
    tensors: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        tensors.update(load_file(path))
    return tensors


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipe_merges(here: Path, name: str) -> None:
    text, lenient = write_models(name)
    layers = PUBLISHED[name][3]
    for backend in ("cpu", "reference"):
        pymerge.merge(text, here / backend, lenient=lenient, backend=backend)
    tensors = read(here / "cpu")
    assert len(tensors) == 9 * layers + 3
    assert json.loads((here / "cpu" / "config.json").read_text())["num_hidden_layers"] == layers
    assert all(np.isfinite(tensor.astype(np.float32)).all() for tensor in tensors.values())
    expected = read(here / "reference")
    assert {key: tensor.tobytes() for key, tensor in tensors.items()} == {
        key: tensor.tobytes() for key, tensor in expected.items()
    }
    if name in STACKED:
        inputs = {str(path): load_file(path) for path in here.glob("*/*/model.safetensors")}
        for task in pymerge.plan(text).tasks:
            (source,) = task.sources
            stored = inputs[source.path][source.name].astype(tensors[task.name].dtype)
            assert tensors[task.name].tobytes() == stored.tobytes(), task.name


def test_the_recipe_of_three_stages_merges_as_it_is(here: Path) -> None:
    text = (RECIPES / "nyxene-v1-11b-solar-layout.yml").read_text()
    *stages, last = (part + "\n" for part in text.split("\n---\n"))
    for number, stage in enumerate(stages):
        for seed, ref in enumerate(list_references(load_recipe(stage))):
            toys.write_llama(
                Path(ref.path), seed=2 * number + seed, layers=32, width=8, vocabulary=24, dtype=ml_dtypes.bfloat16
            )
    pymerge.merge(text, here / "out", lenient=True)
    for stage in stages:
        pymerge.merge(stage, load_recipe(stage).stage)
    pymerge.merge(last, here / "hand", lenient=True)
    assert {name: tensor.tobytes() for name, tensor in read(here / "out").items()} == {
        name: tensor.tobytes() for name, tensor in read(here / "hand").items()
    }
