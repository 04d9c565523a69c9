"""Costs: passes and bytes, found without data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import toys

from pymerge.config import load_recipe
from pymerge.ops import Copy, Gram, WeightedSum
from pymerge.plan import Costs, count_costs, make_plan, trace_task
from pymerge.plan.costs import find_twin


def count(recipe: dict[str, Any]) -> tuple[Costs, int]:
    """Costs of a recipe, and the bytes of one model in it."""
    plan = make_plan(load_recipe({**recipe, "dtype": "bfloat16"}))
    return count_costs(plan), sum(tensor.nbytes for tensor in plan.models[0].tensors.values())


BASED: dict[str, Any] = {"base_model": "base", "models": [{"model": "a"}, {"model": "b"}]}

# Recipe, reads of a whole model, passes.
CASES: dict[str, tuple[dict[str, Any], int, int]] = {
    "linear": ({"merge_method": "linear", "models": BASED["models"], "parameters": {"weight": 1}}, 2, 1),
    "slerp": (
        {"merge_method": "slerp", "base_model": "base", "models": [{"model": "a"}], "parameters": {"t": 0.5}}, 4, 2),
    "task arithmetic": ({**BASED, "merge_method": "task_arithmetic", "parameters": {"weight": 1}}, 3, 1),
    "ties": ({**BASED, "merge_method": "ties", "parameters": {"weight": 1, "density": 0.5}}, 6, 2),
    "ties at full density": ({**BASED, "merge_method": "ties", "parameters": {"weight": 1}}, 3, 1),
    "dare": ({**BASED, "merge_method": "dare_ties", "parameters": {"weight": 1, "density": 0.5}}, 6, 2),
    "nuslerp": ({**BASED, "merge_method": "nuslerp", "parameters": {"weight": 1}}, 6, 2),
    "nuslerp without base": (
        {"merge_method": "nuslerp", "models": BASED["models"], "parameters": {"weight": 1}}, 4, 2),
    "multislerp": ({**BASED, "merge_method": "multislerp", "parameters": {"weight": 1}}, 6, 2),
    "karcher": ({**BASED, "merge_method": "karcher", "parameters": {"max_iter": 1000, "tol": 1e-9}}, 6, 2),
    "model stock": ({**BASED, "merge_method": "model_stock"}, 6, 2),
}  # fmt: skip


@pytest.mark.parametrize(("recipe", "reads", "passes"), CASES.values(), ids=CASES.keys())
def test_reads_of_a_method(here: Path, recipe: dict[str, Any], reads: int, passes: int) -> None:
    for name in ("base", "a", "b"):
        toys.write_llama(here / name)
    costs, size = count(recipe)
    assert costs == Costs(read=reads * size, written=size // 2, copied=0, merged=39, passes=passes)


def test_passthrough_copies(here: Path) -> None:
    toys.write_llama(here / "a")
    costs, size = count({"merge_method": "passthrough", "models": [{"model": "a"}]})
    assert costs == Costs(read=size, written=size // 2, copied=39, merged=0, passes=1)


def test_integers_are_compared_in_all_models(here: Path) -> None:
    for name in ("a", "b"):
        toys.write_stand_in(here / name, {}, {"steps": ("I64", (10,))})
    costs, _ = count({"merge_method": "linear", "models": BASED["models"], "parameters": {"weight": 1}})
    assert costs == Costs(read=160, written=80, copied=1, merged=0, passes=1)


def test_trace_shows_the_requests(here: Path) -> None:
    for name in ("base", "a"):
        toys.write_llama(here / name)
    plan = make_plan(load_recipe(CASES["slerp"][0]))
    trace = trace_task(plan, plan.tasks[0])
    assert [type(measure) for measure in trace.measures] == [Gram]
    assert isinstance(trace.combine, WeightedSum)


def twins(here: Path, recipe: dict[str, Any], **changes: Any) -> set[str | None]:
    """The models whose tensors a merge of `base`, `a` and `b` copies as they are; None for what it calculates."""
    for name in ("base", "a", "b"):
        toys.write_llama(here / name)
    plan = make_plan(load_recipe({**recipe, **changes}))
    found = [find_twin(plan, task) for task in plan.tasks]
    return {None if twin is None else Path(twin.path).parent.name for twin in found}


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ({"merge_method": "passthrough", "models": [{"model": "a"}]}, "a"),
        ({**BASED, "merge_method": "task_arithmetic", "parameters": {"weight": 0}}, "base"),
        ({**BASED, "merge_method": "ties", "parameters": {"weight": 1, "density": 0}}, "base"),
        ({"merge_method": "slerp", "base_model": "base", "models": [{"model": "a"}], "parameters": {"t": 1}}, "a"),
    ],
)
def test_a_twin_is_what_is_copied_whatever_the_weights_are(here: Path, recipe: dict[str, Any], expected: str) -> None:
    assert twins(here, recipe) == {expected}


def test_what_changes_its_type_has_no_twin(here: Path) -> None:
    recipe = {"merge_method": "passthrough", "models": [{"model": "a"}]}
    assert twins(here, recipe, dtype="bfloat16") == {None}


def test_what_is_copied_after_a_measure_has_no_twin(here: Path) -> None:
    # Where the measures say so a copy may become a sum: nothing is known before.
    recipe = {**BASED, "merge_method": "dare_linear", "parameters": {"weight": 1, "density": 0.5, "lambda": 0}}
    plan_twins = twins(here, recipe)
    plan = make_plan(load_recipe(recipe))
    assert {type(trace_task(plan, task).combine) for task in plan.tasks} == {Copy}
    assert plan_twins == {None}


def test_integers_that_must_agree_have_no_twin(here: Path) -> None:
    for name in ("a", "b"):
        toys.write_stand_in(here / name, {}, {"steps": ("I64", (10,))})
    recipe = {"merge_method": "linear", "models": BASED["models"], "parameters": {"weight": 1}}
    plan = make_plan(load_recipe(recipe))
    assert [find_twin(plan, task) for task in plan.tasks] == [None]
