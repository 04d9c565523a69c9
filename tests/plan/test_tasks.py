"""What a plan holds: sources, positions, parameters, types; tied heads and buffers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from ml_dtypes import bfloat16

from pymerge.config import load_recipe
from pymerge.methods.base import Inputs
from pymerge.plan import MergePlan, TensorTask, make_plan

UP = "model.layers.{}.mlp.up_proj.weight"


def plan(recipe: Mapping[str, Any] | str, **options: Any) -> MergePlan:
    return make_plan(load_recipe(recipe), **options)


def find(made: MergePlan, name: str) -> TensorTask:
    return next(task for task in made.tasks if task.name == name)


def inputs_of(made: MergePlan, name: str) -> Inputs:
    inputs = find(made, name).inputs
    assert inputs is not None
    return inputs


def ties(*models: str, **changes: Any) -> dict[str, Any]:
    listed = [{"model": model} for model in models]
    return {"merge_method": "ties", "base_model": "base", "models": listed, "parameters": {"weight": 0.5}, **changes}


@pytest.fixture
def family(here: Path) -> Path:
    """base, a, b and c: four models of one shape."""
    for seed, name in enumerate(("base", "a", "b", "c")):
        toys.write_llama(here / name, seed=seed)
    return here


def test_a_base_that_is_not_listed_comes_last(family: Path) -> None:
    made = plan(ties("a", "b"))
    task, inputs = find(made, "model.norm.weight"), inputs_of(made, "model.norm.weight")
    assert task.labels == ("a", "b", "base")
    assert (inputs.models, inputs.base, inputs.places) == ((0, 1), 2, (0, 1))
    assert [str(model.ref) for model in made.models] == ["a", "b", "base"]
    assert made.donor == 2


def test_a_listed_base_keeps_its_place(family: Path) -> None:
    made = plan(ties("a", "base", "b"))
    inputs = inputs_of(made, "model.norm.weight")
    assert find(made, "model.norm.weight").labels == ("a", "base", "b")
    assert (inputs.models, inputs.base, inputs.places) == ((0, 2), 1, (0, 1))


def test_the_base_is_an_input_of_linear(family: Path) -> None:
    recipe = {"merge_method": "linear", "base_model": "base", "models": [{"model": "a"}], "parameters": {"weight": 1}}
    inputs = inputs_of(plan(recipe), "model.norm.weight")
    assert (inputs.models, inputs.base, inputs.places) == ((0, 1), None, (0, 1))


def test_the_donor_without_base_is_the_first_model(family: Path) -> None:
    recipe = {"merge_method": "linear", "models": [{"model": "b"}, {"model": "a"}], "parameters": {"weight": 1}}
    made = plan(recipe)
    assert made.donor == 0
    assert str(made.models[0].ref) == "b"


def test_a_model_parameter_beats_the_recipe(family: Path) -> None:
    recipe = ties("a", "b")
    recipe["models"][1]["parameters"] = {"weight": 0.9, "density": [0, 1]}
    inputs = inputs_of(plan(recipe), UP.format(1))
    assert inputs.per_model["weight"] == (0.5, 0.9)
    assert inputs.per_model["density"] == (1.0, pytest.approx(1 / 3))
    assert inputs.values["normalize"] is True


def test_numbers_become_what_the_parameter_is(family: Path) -> None:
    inputs = inputs_of(
        plan(ties("a", parameters={"weight": True, "normalize": 0, "rescale": 1, "lambda": "1e-1"})), UP.format(0)
    )
    assert inputs.per_model["weight"] == (1.0,)
    assert (inputs.values["normalize"], inputs.values["rescale"], inputs.values["lambda"]) == (False, True, 0.1)


SLICED = """
merge_method: slerp
base_model: base
slices:
- sources:
  - {model: base, layer_range: [0, 3]}
  - {model: a, layer_range: [1, 4]}
  parameters: {t: [0, 1]}
- sources:
  - {model: c, layer_range: [3, 4]}
  - {model: base, layer_range: [0, 1]}
  parameters: {t: [0.25, 0.75]}
"""


def test_slices_number_layers_anew(family: Path) -> None:
    made = plan(SLICED)
    assert made.layers == 4
    task = find(made, UP.format(2))
    assert [stored.name for stored in task.sources] == [UP.format(2), UP.format(3)]
    assert [stored.name for stored in find(made, UP.format(3)).sources] == [UP.format(3), UP.format(0)]


def test_gradients_restart_in_each_slice_and_end_at_one(family: Path) -> None:
    made = plan(SLICED)
    assert [inputs_of(made, UP.format(i)).number("t") for i in range(4)] == [0, 0.5, 1, 0.75]


def test_loose_tensors_belong_to_the_first_and_the_last_slice_at_position_zero(family: Path) -> None:
    made = plan(SLICED)
    embedding, head = find(made, "model.embed_tokens.weight"), find(made, "lm_head.weight")
    assert (embedding.labels, inputs_of(made, embedding.name).number("t")) == (("base", "a"), 0.0)
    assert (head.labels, inputs_of(made, head.name).number("t")) == (("c", "base"), 0.25)


def test_the_last_slice_gives_all_of_its_sources_to_the_head(family: Path) -> None:
    made = plan("""
merge_method: linear
parameters: {weight: 1}
slices:
- sources: [{model: a, layer_range: [0, 1]}]
- sources: [{model: b, layer_range: [0, 1]}, {model: c, layer_range: [0, 1]}]
""")
    assert find(made, "lm_head.weight").labels == ("b", "c")
    assert find(made, "model.embed_tokens.weight").labels == ("a",)


def test_model_filters_see_input_names_and_global_filters_output_names(family: Path) -> None:
    made = plan("""
merge_method: ties
base_model: base
parameters: {lambda: [{filter: layers.0., value: 0.5}, {value: 1}]}
slices:
- sources:
  - {model: base, layer_range: [0, 1]}
  - model: a
    layer_range: [3, 4]
    parameters: {weight: [{filter: layers.3., value: 0.3}, {value: 1}]}
""")
    inputs = inputs_of(made, UP.format(0))
    assert inputs.per_model["weight"] == (0.3,)
    assert inputs.number("lambda") == 0.5


def test_a_slice_can_have_its_own_base(family: Path) -> None:
    made = plan(SLICED.replace("  parameters: {t: [0, 1]}", "  base_model: a\n  parameters: {t: [0, 1]}"))
    assert inputs_of(made, UP.format(0)).base == 1
    assert inputs_of(made, UP.format(3)).base == 1
    assert made.models[made.donor].ref.path == "base"


def test_the_same_model_twice_is_two_inputs(family: Path) -> None:
    made = plan("""
merge_method: linear
parameters: {weight: 1}
slices:
- sources: [{model: a, layer_range: [0, 2]}, {model: a, layer_range: [2, 4]}]
""")
    assert [stored.name for stored in find(made, UP.format(1)).sources] == [UP.format(1), UP.format(3)]
    assert any('"a" is listed more than once' in warning.message for warning in made.warnings)


@pytest.mark.parametrize(
    ("changes", "stored", "compute"),
    [
        ({}, "float32", "float32"),
        ({"dtype": "bfloat16"}, "bfloat16", "float32"),
        ({"dtype": "float32", "out_dtype": "float16"}, "float16", "float32"),
        ({"dtype": "float64", "out_dtype": "bfloat16"}, "bfloat16", "float64"),
    ],
)
def test_types(here: Path, changes: dict[str, str], stored: str, compute: str) -> None:
    toys.write_llama(here / "base", dtype=np.float16)
    toys.write_llama(here / "a", dtype=bfloat16)
    made = plan(ties("a", **changes))
    assert {(task.dtype.name, task.compute.name) for task in made.tasks} == {(stored, compute)}
    assert made.model_config["torch_dtype"] == stored


def test_float64_input_is_computed_in_float64(here: Path) -> None:
    toys.write_llama(here / "base", dtype=np.float64)
    toys.write_llama(here / "a")
    made = plan(ties("a"))
    assert {(task.dtype.name, task.compute.name) for task in made.tasks} == {("float64", "float64")}


def test_integers_are_copied_and_must_agree(here: Path) -> None:
    extra = {"model.steps": np.arange(3)}
    for name in ("base", "a"):
        toys.write_llama(here / name, extra=extra)
    task = find(plan(ties("a", dtype="bfloat16")), "model.steps")
    assert (task.inputs, task.must_agree, task.dtype.name, len(task.sources)) == (None, True, "int64", 2)


def test_passthrough_copies_integers(here: Path) -> None:
    toys.write_llama(here / "a", extra={"model.steps": np.arange(3)})
    task = find(plan({"merge_method": "passthrough", "models": [{"model": "a"}], "dtype": "bfloat16"}), "model.steps")
    assert (task.inputs, task.must_agree, task.dtype.name) == (None, False, "int64")


def test_buffers_that_one_model_lacks_are_copied_as_they_are(here: Path) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    toys.write_llama(here / "base")
    toys.write_llama(here / "a", extra={name: np.ones(4, np.float32)})
    task = find(plan(ties("a", dtype="bfloat16")), name)
    assert (task.labels, task.inputs, task.dtype.name) == (("a",), None, "float32")


def test_a_float_buffer_is_the_base_s_own(here: Path) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    for model in ("base", "a"):
        toys.write_llama(here / model, extra={name: np.ones(4, np.float32)})
    task = find(plan(ties("a", dtype="bfloat16")), name)
    assert (task.labels, task.must_agree) == (("base",), False)


def test_an_integer_buffer_must_agree(here: Path) -> None:
    name = "model.embeddings.position_ids"
    for model in ("base", "a"):
        toys.write_llama(here / model, extra={name: np.arange(4)})
    task = find(plan(ties("a")), name)
    assert (task.labels, task.must_agree) == (("a", "base"), True)


TIED = {"tie_word_embeddings": True}


def test_no_head_where_all_are_tied(here: Path) -> None:
    for name in ("base", "a"):
        toys.write_llama(here / name, head=False, config=TIED)
    made = plan(ties("a"))
    assert all(task.name != "lm_head.weight" for task in made.tasks)
    assert made.model_config["tie_word_embeddings"] is True


@pytest.mark.parametrize("tied", ["base", "a"])
def test_the_embedding_stands_in_for_the_head_of_a_tied_model(here: Path, tied: str) -> None:
    for name in ("base", "a"):
        toys.write_llama(here / name, head=name != tied, config=TIED if name == tied else None)
    made = plan(ties("a"))
    used = dict(zip(find(made, "lm_head.weight").labels, find(made, "lm_head.weight").sources, strict=True))
    assert used[tied].name == "model.embed_tokens.weight"
    assert {used[name].name for name in used if name != tied} == {"lm_head.weight"}
    assert made.model_config["tie_word_embeddings"] is False


def test_a_borrowed_head_unties_models_that_say_nothing(here: Path) -> None:
    for name in ("base", "a"):
        toys.write_llama(here / name, head=name == "a", config={"tie_word_embeddings": None})
    assert plan(ties("a")).model_config["tie_word_embeddings"] is False


def test_a_stored_head_of_tied_models_is_kept_and_stays_tied(here: Path) -> None:
    for name in ("base", "a"):
        toys.write_llama(here / name, config=TIED)
    made = plan(ties("a"))
    assert find(made, "lm_head.weight").labels == ("a", "base")
    assert made.model_config["tie_word_embeddings"] is True


def test_a_tied_last_slice_after_an_untied_first_one_gets_a_head(here: Path) -> None:
    toys.write_llama(here / "a")
    toys.write_llama(here / "b", head=False, config=TIED)
    made = plan("""
merge_method: passthrough
slices:
- sources: [{model: a, layer_range: [0, 2]}]
- sources: [{model: b, layer_range: [2, 4]}]
""")
    head = find(made, "lm_head.weight")
    assert (head.labels, head.sources[0].name) == (("b",), "model.embed_tokens.weight")
    assert made.model_config["tie_word_embeddings"] is False


def test_the_dtype_key_of_the_donor_is_kept(here: Path) -> None:
    toys.write_llama(here / "base", config={"dtype": "float32", "text_config": {"dtype": "float32"}})
    toys.write_llama(here / "a")
    config = plan(ties("a", dtype="bfloat16")).model_config
    assert (config["dtype"], config["text_config"]) == ("bfloat16", {"dtype": "bfloat16"})


def test_a_donor_without_dtype_gets_one(here: Path) -> None:
    names = dict.fromkeys(("model.layers.0.w", "model.norm.weight"), ("BF16", (4, 4)))
    toys.write_stand_in(here / "a", {"num_hidden_layers": 1}, names)
    config = plan({"merge_method": "passthrough", "models": [{"model": "a"}]}).model_config
    assert config == {"num_hidden_layers": 1, "torch_dtype": "bfloat16"}


def test_gpt2_with_and_without_wrapper(here: Path) -> None:
    shapes = {f"h.{i}.{part}": ("F32", (2, 2)) for i in range(2) for part in ("ln_1.weight", "mlp.weight")}
    config = {"architectures": ["GPT2LMHeadModel"], "n_layer": 2}
    toys.write_stand_in(here / "base", config, shapes)
    toys.write_stand_in(here / "a", config, {f"transformer.{name}": shape for name, shape in shapes.items()})
    task = find(plan(ties("a")), "h.1.mlp.weight")
    assert [stored.name for stored in task.sources] == ["transformer.h.1.mlp.weight", "h.1.mlp.weight"]


def test_models_with_several_stacks_merge_by_name(here: Path) -> None:
    names = [
        f"{tower}.{i}.{part}" for tower, n in (("encoder", 2), ("decoder", 3)) for i in range(n) for part in "abcd"
    ]
    for name in ("base", "a"):
        toys.write_stand_in(here / name, {"num_layers": 2, "num_decoder_layers": 3},
                            dict.fromkeys([*names, "shared.weight"], ("F32", (4, 2))))  # fmt: skip
    recipe = ties("a", parameters={"weight": [0, 1]})
    made = plan(recipe)
    weights = [inputs_of(made, name).per_model["weight"] for name in ("encoder.1.a", "decoder.1.a", "shared.weight")]
    assert weights == [(1.0,), (0.5,), (0.0,)]


def test_seed_reaches_the_random_streams(family: Path) -> None:
    keys = {inputs_of(plan(ties("a", "b"), seed=seed), UP.format(0)).stream(0) for seed in (0, 1)}
    assert len(keys) == 2
