"""Tensors made again from the inputs: equal for every method, told apart where they differ, bounded in memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import toys
import yaml
from execute.merges import METHODS, make_recipe, random_tensors, write_models
from safetensors.numpy import save_file
from verify.outputs import (
    MANIFEST,
    bf16,
    edit,
    failed,
    find,
    fix_digest,
    make_models,
    make_output,
    messages,
    overwrite,
    stored,
)

import pymerge
from pymerge.errors import RecipeError
from pymerge.verify.reading import open_model
from pymerge.verify.recompute import memory_needed, recompute
from pymerge.verify.values import Accuracy, Recomputed, Status, Verification

NAME = "model.layers.1.mlp.up_proj.weight"


def by_name(found: Verification) -> dict[str, Recomputed]:
    return {tensor.name: tensor for tensor in found.recomputed}


def merge(folder: Path, method: str, dtype: Any = None, **changes: Any) -> Path:
    """A merge of three models with tensors of all sizes, mixed types unless one is given."""
    folders = write_models(folder, [random_tensors(seed, dtype) for seed in range(4)])
    pymerge.merge(make_recipe(method, folders, **changes), folder / "out")
    return folder / "out"


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_the_references_bytes_and_is_near_float64(tmp_path: Path, method: str) -> None:
    found = pymerge.verify(merge(tmp_path, method), sample=None)
    assert found.status is Status.PASSED
    assert len(found.recomputed) == len(found.checks and random_tensors(0))
    far = [tensor.accuracy for tensor in found.recomputed if tensor.accuracy]
    # docs/numerics.md: at most 5 units with these weights, and few decisions change.
    assert far
    assert max(each.largest for each in far) < 8
    assert sum(each.otherwise for each in far) < 20


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("method", ["linear", "ties", "dare_ties", "ties-global", "slerp"])
def test_every_type_gives_the_references_bytes(tmp_path: Path, method: str, dtype: Any) -> None:
    assert pymerge.verify(merge(tmp_path, method, dtype), sample=None).status is Status.PASSED


def make_staged(folder: Path, scope: str, **last: Any) -> Path:
    """A recipe whose first stage trims tensors of all sizes together, and whose result reads it."""
    base, first, second = map(str, write_models(folder, [random_tensors(seed, np.float32) for seed in range(3)]))
    trimmed = [{"model": first, "parameters": {"weight": 0.5, "density": 0.4}}]
    stage = {"name": "trimmed", "merge_method": "ties", "base_model": base, "models": trimmed}
    stage |= {"parameters": {"trim_scope": scope}}
    result = {"merge_method": "slerp", "base_model": "trimmed", "models": [{"model": second}], "parameters": {"t": 0.3}}
    pymerge.merge("\n---\n".join(yaml.safe_dump(each) for each in (stage, {**result, **last})), folder / "out")
    return folder / "out"


@pytest.mark.parametrize("scope", ["tensor", "layer", "global"])
def test_what_reads_a_stage_that_is_trimmed_together_is_made_again(tmp_path: Path, scope: str) -> None:
    found = pymerge.verify(make_staged(tmp_path, scope), sample=None)
    assert messages(found, "recomputed") == ""
    assert len(found.recomputed) == len(random_tensors(0))


@pytest.mark.parametrize("scope", ["tensor", "global"])
def test_what_reads_a_stage_with_an_adapter_is_made_again(tmp_path: Path, scope: str) -> None:
    models = write_models(tmp_path, [random_tensors(seed, np.float32) for seed in range(2)])
    rows, columns = random_tensors(0)["layers.1.weight"].shape
    factors = {"A": np.full((2, columns), 0.5, np.float32), "B": np.full((rows, 2), 0.25, np.float32)}
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 4}')
    save_file(
        {f"base_model.model.layers.1.lora_{part}.weight": factor for part, factor in factors.items()},
        adapter / "adapter_model.safetensors",
    )
    stage = {"name": "one", "merge_method": "ties", "base_model": str(models[0]), "parameters": {"trim_scope": scope}}
    stage |= {"models": [{"model": str(models[1]), "parameters": {"weight": 0.5, "density": 0.4}}]}
    last = {"merge_method": "passthrough", "models": [{"model": f"one+{adapter}"}]}
    pymerge.merge("\n---\n".join(map(yaml.safe_dump, (stage, last))), tmp_path / "out")
    found = pymerge.verify(tmp_path / "out", sample=None)
    assert found.status is Status.PASSED, found


def test_what_reads_a_stage_that_is_too_large_to_trim_again_is_named(tmp_path: Path) -> None:
    found = pymerge.verify(make_staged(tmp_path, "global"), sample=None, memory=300_000)
    assert "layers.1.bias: is made of what is trimmed together with layers.1.weight" in messages(found, "recomputed")
    assert "layers.1.bias" not in by_name(found)


def test_what_is_computed_in_float64_differs_from_it_by_one_rounding(tmp_path: Path) -> None:
    found = pymerge.verify(merge(tmp_path, "linear", np.float64, out_dtype="bfloat16"), sample=None)
    far = [tensor.accuracy for tensor in found.recomputed if tensor.accuracy]
    assert all(each.largest <= 0.5 and each.rounded == 1 for each in far)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_copies_into_another_type_are_made_again(tmp_path: Path, dtype: str) -> None:
    models = make_models(tmp_path)
    recipe = {"merge_method": "passthrough", "models": [{"model": str(models[0])}], "dtype": dtype}
    pymerge.merge(recipe, tmp_path / "out")
    found = pymerge.verify(tmp_path / "out", sample=None)
    assert find(found, "recomputed").status is Status.PASSED
    overwrite(stored(tmp_path / "out", NAME), 9, np.array([7], dtype).tobytes())
    assert by_name(pymerge.verify(tmp_path / "out", sample=None))[NAME].first == 9


def test_stacked_layers_are_made_again(tmp_path: Path) -> None:
    models = [str(model) for model in make_models(tmp_path)]
    slices = [{"sources": [{"model": model, "layer_range": [0, 2]}]} for model in models]
    pymerge.merge({"merge_method": "passthrough", "slices": slices}, tmp_path / "out")
    found = pymerge.verify(tmp_path / "out", sample=None)
    assert found.status is Status.PASSED
    assert "model.layers.3.mlp.up_proj.weight" in by_name(found)


def test_copies_without_a_digest_are_all_compared_with_their_source(tmp_path: Path) -> None:
    models = make_models(tmp_path)
    pymerge.merge({"merge_method": "passthrough", "models": [{"model": str(models[0])}]}, tmp_path / "out")
    edit(tmp_path / "out" / MANIFEST, lambda values: values["digests"].update(dict.fromkeys(values["digests"])))
    found = pymerge.verify(tmp_path / "out", sample=1)
    assert found.status is Status.PASSED
    assert len(found.recomputed) == len(open_model(str(models[0])).tensors)
    overwrite(stored(tmp_path / "out", NAME), 4, bf16(2))
    assert failed(pymerge.verify(tmp_path / "out", sample=1)) == {"recomputed"}


def test_what_is_not_the_references_is_counted_and_its_first_element_named(tmp_path: Path) -> None:
    out = make_output(tmp_path)
    tensor = stored(out, NAME)
    for index in (100, 30):
        overwrite(tensor, index, bf16(3.0))
    fix_digest(out, tensor)
    found = pymerge.verify(out, sample=None)
    assert failed(found) == {"recomputed"}
    assert (by_name(found)[NAME].differing, by_name(found)[NAME].first) == (2, 30)
    assert f"{NAME}: 2 of 1,536 elements are not the reference's, the first at 30" in messages(found, "recomputed")
    accuracy = by_name(found)[NAME].accuracy
    assert accuracy is not None
    assert accuracy.largest > 100
    assert accuracy.otherwise == 0


def test_elements_of_which_rounding_changes_a_decision_are_counted_apart(tmp_path: Path) -> None:
    # In float32 both votes round to the same magnitude, and a sum of zero is positive; in float64 it is negative.
    base = np.zeros((1, 64), np.float32)
    up = np.full((1, 64), 1.0, np.float32)
    models = [{"layers.0.weight": value} for value in (base, up, -up)]
    folders = write_models(tmp_path, models)
    recipe = make_recipe("ties", folders, parameters={"normalize": False})
    recipe["models"][0]["parameters"] = {"weight": 1.0, "density": 1.0}
    recipe["models"][1]["parameters"] = {"weight": 1.0 + 2.0**-30, "density": 1.0}
    pymerge.merge(recipe, tmp_path / "out")
    (tensor,) = pymerge.verify(tmp_path / "out", sample=None).recomputed
    assert tensor.differing == 0
    assert tensor.accuracy == Accuracy(otherwise=64, largest=0, rms=0, within=0, rounded=0)


def test_a_sample_has_as_many_tensors_as_are_asked_for_and_depends_on_its_seed_alone(tmp_path: Path) -> None:
    out = make_output(tmp_path)
    draws = [tuple(by_name(pymerge.verify(out, sample=3, seed=seed))) for seed in (0, 0, 1, 2)]
    assert draws[0] == draws[1]
    assert len(set(draws)) > 1
    assert {len(draw) for draw in draws} == {3}
    assert not pymerge.verify(out, sample=0).recomputed


def test_what_comes_next_is_told(tmp_path: Path) -> None:
    steps: list[str] = []
    found = pymerge.verify(make_output(tmp_path), sample=2, on_step=steps.append)
    assert steps == ["reading 21 tensors", *(f"making {name} again" for name in by_name(found))]


def test_a_sample_prefers_what_fits_into_memory_and_all_says_what_does_not(tmp_path: Path) -> None:
    out = make_output(tmp_path)
    small = pymerge.verify(out, sample=2, memory=10_000)
    assert small.status is Status.PASSED
    assert "too large for 10,000 bytes" in find(small, "recomputed").summary
    every = pymerge.verify(out, sample=None, memory=10_000)
    assert every.status is Status.INCOMPLETE
    assert f"{NAME}: takes" in messages(every, "recomputed")
    assert NAME not in by_name(every)


def test_a_tensor_is_not_made_again_where_one_that_it_is_trimmed_with_is_too_large(tmp_path: Path) -> None:
    found = pymerge.verify(merge(tmp_path, "ties-global", np.float32), sample=None, memory=300_000)
    assert "layers.1.bias: is trimmed together with layers.1.weight" in messages(found, "recomputed")


@pytest.mark.parametrize("dtype", [np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("method", METHODS)
def test_no_method_takes_more_memory_than_is_reckoned_with(tmp_path: Path, method: str, dtype: Any) -> None:
    shape = (100, 1000)
    models = [
        {"layers.0.weight": np.random.default_rng(seed).standard_normal(shape).astype(dtype)} for seed in range(4)
    ]
    plan = pymerge.plan(make_recipe(method, write_models(tmp_path, models), dtype=np.dtype(dtype).name))
    values = np.random.default_rng(9).standard_normal(shape).astype(dtype)
    held = open_model(str(toys.write_checkpoint(tmp_path / "held", {"layers.0.weight": values}, {}))).tensors
    tracemalloc.start()
    recompute(plan, held, sample=None, seed=0, memory=1 << 40)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= max(memory_needed(plan, task) for task in plan.tasks) * 1.05 + (1 << 20)


def test_inputs_that_moved_are_named_and_found_where_they_are_said_to_be(tmp_path: Path) -> None:
    models = make_models(tmp_path)
    out = make_output(tmp_path, models=models)
    moved = models[1].rename(tmp_path / "moved")
    lost = pymerge.verify(out)
    assert lost.status is Status.INCOMPLETE
    assert str(models[1]) in messages(lost, "inputs")
    assert "--model NAME=FOLDER" in messages(lost, "inputs")
    assert find(lost, "digests").status is Status.PASSED
    found = pymerge.verify(out, sample=None, models={str(models[1]): str(moved)})
    assert found.status is Status.PASSED
    assert len(found.recomputed) > 0


def test_a_name_that_the_recipe_does_not_have_is_an_error(tmp_path: Path) -> None:
    models = make_models(tmp_path)
    out = make_output(tmp_path, models=models)
    with pytest.raises(RecipeError, match='has no model "nowhere"'):
        pymerge.verify(out, models={"nowhere": "x"})
    with pytest.raises(RecipeError, match="cannot be at one place"):
        pymerge.verify(out, models={str(models[0]): str(models[1])})


def test_inputs_that_are_not_those_of_the_merge_are_refused_by_name(tmp_path: Path) -> None:
    models = make_models(tmp_path)
    out = make_output(tmp_path, models=models)
    toys.write_llama(models[1], layers=2, dtype=np.float32)
    found = pymerge.verify(out)
    assert found.status is Status.INCOMPLETE
    assert f'is not the model "{models[1]}" that was merged: it has' in messages(found, "inputs")
    assert not found.recomputed


def test_inputs_that_were_only_touched_are_used_and_named(tmp_path: Path) -> None:
    models = make_models(tmp_path)
    out = make_output(tmp_path, models=models)
    (models[0] / "model.safetensors").touch()
    found = pymerge.verify(out)
    assert found.status is Status.PASSED
    assert f"copied since: {models[0]}" in find(found, "inputs").summary


def test_inputs_whose_digests_were_kept_are_refused_for_one_byte(tmp_path: Path) -> None:
    models = make_models(tmp_path)
    out = make_output(tmp_path, models=models, hash_inputs=True)
    assert pymerge.verify(out).status is Status.PASSED
    overwrite(stored(models[0], NAME), 0, bf16(9))
    found = pymerge.verify(out)
    assert found.status is Status.INCOMPLETE
    assert "its SHA-256 is another" in messages(found, "inputs")


def test_without_its_recipe_nothing_is_made_again(tmp_path: Path) -> None:
    out = make_output(tmp_path)
    (out / "mergekit_config.yml").unlink()
    found = pymerge.verify(out)
    assert found.status is Status.INCOMPLETE
    assert "there is no mergekit_config.yml" in messages(found, "inputs")


def test_tensors_that_a_recipe_does_not_give_are_found(tmp_path: Path) -> None:
    out = make_output(tmp_path)
    recipe = out / "mergekit_config.yml"
    recipe.write_text(recipe.read_text() + "dtype: float32\n")
    assert "is bfloat16 [96, 32], the recipe gives float32 [96, 32]" in messages(pymerge.verify(out), "recomputed")
