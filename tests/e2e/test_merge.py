"""From a recipe to a checkpoint that loads: whole merges of small models, through API and command line."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import toys
from safetensors.numpy import load_file
from typer.testing import CliRunner

import pymerge
from pymerge.cli import app
from pymerge.errors import BackendError, RecipeError


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three Llama-like models in float32: base, one, two; base has a tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("base", "one", "two")):
        toys.write_llama(folder / name, seed=seed)
    (folder / "base" / "tokenizer.json").write_text("{}")
    (folder / "base" / "generation_config.json").write_text('{"top_p": 0.9}')
    return folder


def write_recipe(folder: Path, models: Path, text: str) -> Path:
    """A recipe file in which `@name` is a model's folder."""
    path = folder / "recipe.yml"
    path.write_text(text.replace("@", f"{models}/"))
    return path


def read(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint."""
    tensors: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        tensors.update(load_file(path))
    return tensors


LINEAR = """\
models:
  - model: @one
    parameters: {weight: 0.25}
  - model: @two
    parameters: {weight: 0.75}
merge_method: linear
dtype: float32
"""
TIES = """\
models:
  - model: @one
    parameters: {weight: 1.0, density: 0.5}
  - model: @two
    parameters: {weight: 1.0, density: 0.5}
merge_method: ties
base_model: @base
dtype: bfloat16
"""
DARE = TIES.replace("ties", "dare_ties")
SLERP = """\
slices:
  - sources:
      - {model: @base, layer_range: [0, 4]}
      - {model: @one, layer_range: [0, 4]}
merge_method: slerp
base_model: @base
parameters:
  t: [0, 0.5, 1]
dtype: bfloat16
"""
STACK = """\
slices:
  - sources: [{model: @base, layer_range: [0, 3]}]
  - sources: [{model: @one, layer_range: [1, 4]}]
merge_method: passthrough
"""
RECIPES = {"linear": LINEAR, "ties": TIES, "dare": DARE, "slerp": SLERP, "stack": STACK}


def test_linear_is_the_weighted_mean(tmp_path: Path, models: Path) -> None:
    pymerge.merge(write_recipe(tmp_path, models, LINEAR), tmp_path / "out")
    one, two, merged = read(models / "one"), read(models / "two"), read(tmp_path / "out")
    assert merged.keys() == one.keys()
    for name, tensor in merged.items():
        np.testing.assert_allclose(tensor, 0.25 * one[name] + 0.75 * two[name], rtol=1e-6, atol=1e-7)


def test_ties_of_equal_models_is_the_model(tmp_path: Path, models: Path) -> None:
    text = TIES.replace("@two", "@one").replace("bfloat16", "float32").replace("0.5", "1.0")
    pymerge.merge(write_recipe(tmp_path, models, text), tmp_path / "out")
    one, merged = read(models / "one"), read(tmp_path / "out")
    for name, tensor in merged.items():
        np.testing.assert_allclose(tensor, one[name], rtol=1e-5, atol=1e-6)


def test_stacked_layers_are_copied_bit_for_bit(tmp_path: Path, models: Path) -> None:
    report = pymerge.merge(write_recipe(tmp_path, models, STACK), tmp_path / "out")
    base, one, merged = read(models / "base"), read(models / "one"), read(tmp_path / "out")
    assert report.layers == 6
    assert report.copied == report.tensors
    name = "model.layers.{}.mlp.up_proj.weight"
    for layer, (source, index) in enumerate([(base, 0), (base, 1), (base, 2), (one, 1), (one, 2), (one, 3)]):
        assert merged[name.format(layer)].tobytes() == source[name.format(index)].tobytes()
    assert merged["model.embed_tokens.weight"].tobytes() == base["model.embed_tokens.weight"].tobytes()
    assert merged["lm_head.weight"].tobytes() == one["lm_head.weight"].tobytes()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_hidden_layers"] == 6


@pytest.mark.parametrize("name", RECIPES)
def test_the_bytes_depend_on_neither_threads_nor_memory(tmp_path: Path, models: Path, name: str) -> None:
    recipe = write_recipe(tmp_path, models, RECIPES[name])
    pymerge.merge(recipe, tmp_path / "a", threads=1)
    pymerge.merge(recipe, tmp_path / "b", threads=7, memory=512 << 20)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_another_seed_gives_another_mask(tmp_path: Path, models: Path) -> None:
    recipe = write_recipe(tmp_path, models, DARE)
    pymerge.merge(recipe, tmp_path / "a", seed=1)
    pymerge.merge(recipe, tmp_path / "b", seed=2)
    assert (tmp_path / "a/model.safetensors").read_bytes() != (tmp_path / "b/model.safetensors").read_bytes()


def test_shards_hold_the_same_tensors_as_one_file(tmp_path: Path, models: Path) -> None:
    recipe = write_recipe(tmp_path, models, TIES)
    pymerge.merge(recipe, tmp_path / "a")
    report = pymerge.merge(recipe, tmp_path / "b", shard_size=20_000)
    assert len(report.shards) > 2
    whole, parts = read(tmp_path / "a"), read(tmp_path / "b")
    index = json.loads((tmp_path / "b" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == whole.keys() == parts.keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())
    for name, tensor in whole.items():
        assert tensor.tobytes() == parts[name].tobytes()
        assert tensor.dtype == ml_dtypes.bfloat16


def test_the_folder_has_everything_and_nothing_temporary(tmp_path: Path, models: Path) -> None:
    pymerge.merge(write_recipe(tmp_path, models, TIES), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "mergekit_config.yml",
        "model.safetensors",
        "pymerge_manifest.json",
        "tokenizer.json",
    ]


def test_weights_get_the_mode_that_the_umask_asks_for(tmp_path: Path, models: Path) -> None:
    before = os.umask(0o027)
    try:
        pymerge.merge(write_recipe(tmp_path, models, TIES), tmp_path / "out", shard_size=20_000)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()} == {0o640}


def test_a_second_run_is_refused_and_overwrite_gives_the_same(tmp_path: Path, models: Path) -> None:
    recipe = write_recipe(tmp_path, models, TIES)
    pymerge.merge(recipe, tmp_path / "out", shard_size=20_000)
    with pytest.raises(RecipeError, match="not empty"):
        pymerge.merge(recipe, tmp_path / "out")
    pymerge.merge(recipe, tmp_path / "out", overwrite=True)
    assert [path.name for path in (tmp_path / "out").glob("model*")] == ["model.safetensors"]


def test_nonfinite_results_stop_the_merge_and_leave_no_config(tmp_path: Path, models: Path) -> None:
    name = "model.norm.weight"
    toys.write_llama(tmp_path / "bad", seed=1, extra={name: np.full(toys.WIDTH, np.inf, np.float32)})
    recipe = write_recipe(tmp_path, models, LINEAR.replace("@one", str(tmp_path / "bad")))
    with pytest.raises(pymerge.PymergeError, match=name):
        pymerge.merge(recipe, tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists()
    report = pymerge.merge(recipe, tmp_path / "out", overwrite=True, allow_nonfinite=True)
    assert report.execution.nonfinite == {name: toys.WIDTH}


def test_a_backend_that_cannot_run_leaves_an_old_model_alone(tmp_path: Path, models: Path) -> None:
    recipe = write_recipe(tmp_path, models, LINEAR)
    pymerge.merge(recipe, tmp_path / "out")
    with pytest.raises(BackendError, match="nonsense"):
        pymerge.merge(recipe, tmp_path / "out", backend="nonsense", overwrite=True)
    assert (tmp_path / "out" / "config.json").exists()


def test_the_reference_backend_writes_the_same_bytes(tmp_path: Path, models: Path) -> None:
    recipe = write_recipe(tmp_path, models, TIES)
    pymerge.merge(recipe, tmp_path / "a", backend="cpu")
    pymerge.merge(recipe, tmp_path / "b", backend="reference")
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_progress_ends_with_every_byte_written(tmp_path: Path, models: Path) -> None:
    seen: list[Any] = []
    report = pymerge.merge(write_recipe(tmp_path, models, TIES), tmp_path / "out", on_progress=seen.append)
    assert seen
    assert seen[-1].written == seen[-1].total
    assert report.execution.written > 0


def test_the_command_line_reports_in_json(tmp_path: Path, models: Path) -> None:
    recipe = write_recipe(tmp_path, models, SLERP)
    result = CliRunner().invoke(app, ["merge", str(recipe), str(tmp_path / "out"), "--format", "json"])
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["method"], report["layers"]) == ("slerp", 4)


def test_mistakes_of_grammar_and_of_models_are_reported_together(tmp_path: Path, models: Path) -> None:
    text = TIES.replace("density: 0.5", "density: 1.5") + "dype: float32\n"
    with pytest.raises(RecipeError) as caught:
        pymerge.plan(write_recipe(tmp_path, models, text))
    messages = [str(problem) for problem in caught.value.problems]
    assert len(messages) == 3
    assert "recipe.yml:3:" in messages[0]
    assert 'unknown key "dype"' in messages[-1]


def test_a_tolerable_mistake_alone_is_an_error_and_lenient_makes_it_a_warning(tmp_path: Path, models: Path) -> None:
    recipe = write_recipe(tmp_path, models, TIES + "dype: float32\n")
    with pytest.raises(RecipeError, match="dype"):
        pymerge.plan(recipe)
    assert "dype" in str(pymerge.plan(recipe, lenient=True).warnings[0])


def test_a_plan_says_what_is_needed_and_writes_nothing(tmp_path: Path, models: Path) -> None:
    recipe = write_recipe(tmp_path, models, SLERP)
    arguments = ["merge", str(recipe), str(tmp_path / "out"), "--dry-run", "--format", "json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    size = sum(tensor.nbytes for tensor in read(models / "base").values())
    assert (facts["layers"], facts["written"], facts["passes"]) == (4, size // 2, 2)
    assert not (tmp_path / "out").exists()


def test_a_plan_lists_resolved_parameters(tmp_path: Path, models: Path) -> None:
    recipe = write_recipe(tmp_path, models, SLERP)
    result = CliRunner().invoke(app, ["plan", str(recipe), "--tensors", "--format", "json"])
    assert result.exit_code == 0, result.stderr
    values = {task["name"]: task["parameters"] for task in json.loads(result.stdout)["tensors"]}
    assert [values[f"model.layers.{i}.mlp.up_proj.weight"]["t"] for i in range(4)] == pytest.approx(
        [0, 1 / 3, 2 / 3, 1]
    )


def test_inspect_reads_folders_and_files(models: Path) -> None:
    for target, architecture in ((models / "base", "LlamaForCausalLM"), (models / "base/model.safetensors", "unknown")):
        result = CliRunner().invoke(app, ["inspect", str(target), "--format", "json", "--tensors"])
        assert result.exit_code == 0, result.stderr
        facts = json.loads(result.stdout)
        assert (facts["architecture"], facts["layers"]) == (architecture, {"model.layers": 4})
        assert {each["name"] for each in facts["tensors"]} == read(models / "base").keys()


def test_doctor_names_the_active_instruction_set() -> None:
    result = CliRunner().invoke(app, ["doctor", "--format", "json"])
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["isa"] in [level["name"] for level in facts["isa_levels"] if level["supported"]]
    assert {"name": "cpu", "available": True} in [
        {key: backend[key] for key in ("name", "available")} for backend in facts["backends"]
    ]
