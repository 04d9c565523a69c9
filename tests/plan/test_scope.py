"""include and exclude: what is left out is the base's tensor, unread otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys

from pymerge import merge
from pymerge.checkpoint.header import read_tensors
from pymerge.config import load_recipe
from pymerge.errors import RecipeError
from pymerge.plan import MergePlan, make_plan
from pymerge.plan.costs import find_twin

METHODS: dict[str, dict[str, Any]] = {
    "ties": {"models": [{"model": "a"}, {"model": "b"}], "parameters": {"weight": 0.5, "density": 0.5}},
    "linear": {"models": [{"model": "a"}, {"model": "base"}], "parameters": {"weight": 0.5}},
    "slerp": {
        "slices": [{"sources": [{"model": "a", "layer_range": [0, 4]}, {"model": "base", "layer_range": [0, 4]}]}],
        "parameters": {"t": 0.5},
    },
}


def recipe(method: str, **changes: Any) -> dict[str, Any]:
    return {"merge_method": method, "base_model": "base", **METHODS[method], **changes}


def plan(*arguments: Any, lenient: bool = False, **changes: Any) -> MergePlan:
    return make_plan(load_recipe(recipe(*arguments, **changes), lenient=lenient), lenient=lenient)


@pytest.fixture
def family(here: Path) -> Path:
    for seed, name in enumerate(("base", "a", "b")):
        toys.write_llama(here / name, seed=seed)
    return here


@pytest.mark.parametrize("method", METHODS)
def test_what_is_left_out_is_the_base_s(family: Path, method: str) -> None:
    made = plan(method, include=["self_attn", "mlp"], exclude="down_proj")
    names = {task.name for task in made.tasks}
    assert names == {task.name for task in plan(method).tasks}
    for task in made.tasks:
        merged = ("self_attn" in task.name or "mlp" in task.name) and "down_proj" not in task.name
        assert (task.inputs is not None) == merged, task.name
        if not merged:
            assert task.labels == ("base",)
            assert find_twin(made, task) == task.sources[0]


def test_bytes_are_the_base_s(family: Path) -> None:
    out = family / "out"
    merge(recipe("ties", exclude=["mlp", "lm_head"]), out)
    results = []
    for folder in (family / "base", out):
        found: dict[str, bytes] = {}
        for path in folder.glob("*.safetensors"):
            data = path.read_bytes()
            tensors = read_tensors(path).values()
            found.update({t.name: data[t.offset : t.offset + t.nbytes] for t in tensors})
        results.append(found)
    base, merged = results
    assert base.keys() == merged.keys()
    same = {name for name in base if base[name] == merged[name]}
    assert same >= {name for name in base if "mlp" in name or "lm_head" in name}
    assert not any("q_proj" in name for name in same)


def test_a_buffer_stays_as_the_base_has_it_unless_the_base_has_none(here: Path) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    for seed, model in enumerate(("base", "a", "b")):
        toys.write_llama(here / model, seed=seed, extra={name: np.full(16, seed, np.float32)})
    for lacking, label in (((), "base"), ((name,), "a")):
        toys.write_llama(here / "base", extra={name: np.zeros(16, np.float32)}, drop=lacking)
        task = next(task for task in plan("linear", include=["mlp"]).tasks if task.name == name)
        assert task.labels == (label,)


def test_shapes_of_what_is_left_out_may_differ(family: Path) -> None:
    toys.write_llama(family / "wide", seed=3, vocabulary=toys.VOCABULARY + 2)
    models = [{"model": "a"}, {"model": "wide"}]
    made = plan("ties", models=models, exclude=["embed_tokens", "lm_head"])
    assert made.model_config["vocab_size"] == toys.VOCABULARY


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("linear", {"exclude": ["mlp"], "base_model": None}, "stays as base_model has it, and there is none"),
        ("ties", {"exclude": ["mpl"]}, 'the filter "mpl" of include or exclude matches no tensor'),
        ("ties", {"include": [["mlp"]]}, "include lists parts of tensor names"),
        ("ties", {"exclude": {"filter": "mlp"}}, "exclude lists parts of tensor names"),
    ],
)
def test_mistakes_are_named(family: Path, method: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        plan(method, **changes)


def test_a_filter_without_a_match_can_be_tolerated(family: Path) -> None:
    assert ["mpl" in warning.message for warning in plan("ties", exclude=["mpl"], lenient=True).warnings] == [True]
