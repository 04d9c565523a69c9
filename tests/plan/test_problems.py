"""Everything that a plan refuses: what is said, where, and which error it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys

from pymerge.config import load_recipe
from pymerge.errors import DTypeError, FormatError, PymergeError, RecipeError, ShapeError
from pymerge.plan import MergePlan, make_plan


def plan(text: str, **options: Any) -> MergePlan:
    return make_plan(load_recipe(text, lenient=options.get("lenient", False)), **options)


def refuse(text: str, error: type[PymergeError] = RecipeError, **options: Any) -> list[str]:
    with pytest.raises(PymergeError) as caught:
        plan(text, **options)
    assert type(caught.value) is error, caught.value
    return str(caught.value).split("\n")


@pytest.fixture
def family(here: Path) -> Path:
    """base, a and b: three models of one shape."""
    for seed, name in enumerate(("base", "a", "b")):
        toys.write_llama(here / name, seed=seed)
    return here


TIES = "merge_method: ties\nbase_model: base\nmodels:\n- {model: a, parameters: {%s}}\n"

# Recipe, start of the message (with its place), a later piece of it. Not tolerable.
FATAL: dict[str, tuple[str, str, str]] = {
    "method": ("merge_method: dare-ties\nmodels: [{model: a}]\n",
               '<recipe>:1:15: there is no merge method "dare-ties"', 'did you mean "dare_ties"?'),
    "no base": ("merge_method: ties\nmodels: [{model: a, parameters: {weight: 1}}]\n",
                "<recipe>:2:10: ties needs a base_model", "base_model: path"),
    "base not in slice": (
        "merge_method: slerp\nbase_model: base\nparameters: {t: 0.5}\nslices:\n"
        "- sources: [{model: a, layer_range: [0, 2]}]\n",
        '<recipe>:5:3: base_model "base" is not among the sources of this slice',
        "add - {model: base, layer_range: [0, 2]}"),
    "too many models": (
        "merge_method: slerp\nbase_model: base\nparameters: {t: 0.5}\nmodels: [{model: a}, {model: b}]\n",
        "<recipe>:4:10: slerp takes exactly 1 model besides the base; here are 2",
        "merge two of them first and the result with the next one"),
    "too few models": ("merge_method: model_stock\nbase_model: base\nmodels: [{model: a}]\n",
                       "<recipe>:3:10: model_stock takes at least 2 models besides the base; here are 1", ""),
    "foreign base": ("merge_method: passthrough\nbase_model: base\nmodels: [{model: a}]\n",
                     '<recipe>:2:13: passthrough: base_model "base" is not the model itself', "remove base_model"),
    "missing parameter": (TIES % "",
                          '<recipe>:4:11: ties: weight is missing for model "a"', "parameters: {weight: ...}"),
    "missing global parameter": ("merge_method: slerp\nbase_model: base\nmodels: [{model: a}]\n",
                                 "<recipe>:1:15: slerp: t is missing", "parameters: {t: ...}"),
    "no filter matches": (
        TIES % "weight: [{filter: mlp, value: 1}]",
        '<recipe>:4:11: ties: weight is missing for model "a", no filter matches tensor "lm_head.weight"',
        "add an entry without filter"),
    "out of bounds": (TIES % "weight: 1, density: 1.4",
                      '<recipe>:4:47: ties: density = 1.4 for model "a" must be in [0, 1]', ""),
    "out of bounds in a gradient": (TIES % "weight: 1, density: [0.5, -1]",
                                    '<recipe>:4:47: ties: density = -1 for model "a" must be in [0, 1]', ""),
    "not a number": (TIES % "weight: heavy", '<recipe>:4:35: ties: weight = heavy for model "a" must be a number', ""),
    "not finite": (TIES % "weight: .inf", '<recipe>:4:35: ties: weight = inf for model "a" must be a number', ""),
    "not a bool": (TIES % "weight: 1" + "parameters: {normalize: 2}\n",
                   "<recipe>:5:25: ties: normalize = 2 must be true or false", ""),
    "not a choice": (TIES % "weight: 1" + "parameters: {rescale: l3}\n",
                     "<recipe>:5:23: ties: rescale = l3 must be one of true, false, l1, l2, linf, inverse", ""),
    "a little out of bounds": (TIES % "weight: 1, density: 1.0000001",
                               '<recipe>:4:47: ties: density = 1.0000001 for model "a" must be in [0, 1]', ""),
    "number between": ("merge_method: karcher\nmodels: [{model: a}, {model: b}]\nparameters: {max_iter: [1, 2]}\n",
                       "<recipe>:3:24: karcher: max_iter must be a whole number, but a gradient gives it 1.333", ""),
    "past the end": ("merge_method: passthrough\nslices:\n- sources: [{model: a, layer_range: [2, 5]}]\n",
                     '<recipe>:3:37: layer_range [2, 5] of "a" passes its end: it has 4 layers', "end at 4"),
    "unequal slice": (
        "merge_method: linear\nparameters: {weight: 1}\nslices:\n"
        "- sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 3]}]\n",
        "<recipe>:4:3: the sources of a slice have different numbers of layers: 2, 3", "one length"),
    "hub id": ("merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: org/absent}]\n",
               '<recipe>:3:18: model "org/absent" is not a folder here',
               "hf download org/absent --local-dir org/absent"),
    "base among the two": (
        "merge_method: nuslerp\nbase_model: a\nparameters: {weight: 1}\nmodels: [{model: a}, {model: b}]\n",
        "<recipe>:4:10: nuslerp takes exactly 2 models besides the base; here are 1", "pymerge methods"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "start", "piece"), FATAL.values(), ids=FATAL.keys())
def test_fatal_problem(family: Path, text: str, start: str, piece: str) -> None:
    (message,) = refuse(text, lenient=True)
    assert message.startswith(start)
    assert piece in message


# The same for what lenient tolerates.
TOLERABLE: dict[str, tuple[str, str, str]] = {
    "unread parameter": (TIES % "weight: 1, densty: 0.5",
                         "<recipe>:4:46: ties does not read densty", 'did you mean "density"?'),
    "parameter of another method": (TIES % "weight: 1" + "parameters: {nuslerp_flatten: true}\n",
                                    "<recipe>:5:31: ties does not read nuslerp_flatten",
                                    "known parameters of ties: consensus"),
    "global parameter at a model": (TIES % "weight: 1, lambda: 0.5",
        '<recipe>:4:46: ties: lambda is one value for all models, and is not read for model "a"',
                                    "move it"),
    "filter": (TIES % "weight: [{filter: mpl, value: 1}, {value: 0}]",
               '<recipe>:4:57: ties: the filter "mpl" of weight matches no tensor', "no wildcards"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "start", "piece"), TOLERABLE.values(), ids=TOLERABLE.keys())
def test_tolerable_problem_is_an_error_or_a_warning(family: Path, text: str, start: str, piece: str) -> None:
    (message,) = refuse(text)
    assert message.startswith(start)
    assert piece in message
    assert [str(warning) for warning in plan(text, lenient=True).warnings] == [message]


def test_recipe_warnings_are_passed_on(family: Path) -> None:
    made = plan("dype: x\n" + TIES % "weight: 1", lenient=True)
    assert [warning.message for warning in made.warnings] == ['unknown key "dype" in a recipe']


def test_one_folder_under_two_names_is_warned_of(family: Path) -> None:
    made = plan(TIES % "weight: 1" + "- {model: ./base/, parameters: {weight: 1}}\n")
    (warning,) = made.warnings
    assert str(warning).startswith('<recipe>:2:13: "base" and "./base/" are the same model')


def test_everything_is_found_together(family: Path) -> None:
    messages = refuse(
        "merge_method: ties\nbase_model: org/absent\nmodels:\n"
        "- {model: a, parameters: {density: 2, densty: 1}}\n- {model: no}\n"
    )
    assert len(messages) == 4
    assert [message.split(":")[1] for message in messages] == ["2", "4", "4", "5"]
    assert all(
        any(piece in message for message in messages) for piece in ("org/absent", "density = 2", "densty", '"no"')
    )


def test_shadowed_filter_is_warned_of(family: Path) -> None:
    made = plan(TIES % "weight: [{filter: mlp, value: 1}, {filter: mlp.up, value: 2}, {value: 0}]")
    (warning,) = made.warnings
    assert 'the filter "mlp.up" of weight never decides' in warning.message


def test_filter_at_a_level_that_is_always_overruled_is_no_problem(family: Path) -> None:
    assert not plan(TIES % "weight: 1" + "parameters: {weight: [{filter: mlp, value: 1}]}\n").warnings


def test_parameter_of_the_base_is_warned_of(family: Path) -> None:
    made = plan(TIES % "weight: 1" + "- {model: base, parameters: {weight: 1}}\n")
    (warning,) = made.warnings
    assert str(warning) == "<recipe>:5:38: ties: weight has no effect on the base"


def test_revision_of_a_local_folder_is_warned_of(family: Path) -> None:
    made = plan("merge_method: passthrough\nmodels: [{model: a@main}]\n")
    assert [warning.message for warning in made.warnings] == ['"a" is a local folder: its revision is not checked']


PAIR = "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: a}, {model: b}]\n"


def test_different_widths_name_three_tensors_and_what_would_work(here: Path) -> None:
    toys.write_llama(here / "a")
    toys.write_llama(here / "b", width=16)
    (message,) = refuse(PAIR, ShapeError, lenient=True)
    assert message.startswith(
        '<recipe>:1:15: shapes differ in 39 tensors: "lm_head.weight": "a" [96, 32], "b" [96, 16]; '
    )
    assert message.count('"a" [') == 3
    assert "passthrough can stack layers of equal width" in message


def test_different_vocabularies_get_their_own_advice(here: Path) -> None:
    toys.write_llama(here / "a")
    toys.write_llama(here / "b", vocabulary=98)
    (message,) = refuse(PAIR, ShapeError)
    assert "shapes differ in 2 tensors" in message
    assert "tokenizer_source: union" in message


def test_slices_of_different_width_do_not_fit(here: Path) -> None:
    toys.write_llama(here / "a")
    toys.write_llama(here / "b", width=16)
    (message,) = refuse(
        "merge_method: passthrough\nslices:\n- sources: [{model: a, layer_range: [0, 2]}]\n"
        "- sources: [{model: b, layer_range: [2, 4]}]\n",
        ShapeError,
    )
    assert message.startswith('<recipe>:4:21: layers of "a" and "b" do not fit on each other: input_layernorm.weight')


def test_slices_with_other_tensors_do_not_fit(here: Path) -> None:
    bias = {f"model.layers.{i}.self_attn.q_proj.bias": np.zeros(4, np.float32) for i in range(4)}
    toys.write_llama(here / "a", extra=bias)
    toys.write_llama(here / "b")
    text = ("merge_method: passthrough\nslices:\n- sources: [{model: a, layer_range: [0, 2]}]\n"
            "- sources: [{model: b, layer_range: [2, 4]}]\n")  # fmt: skip
    (message,) = refuse(text, ShapeError)
    assert 'layers of "a" have tensors that those of "b" lack: self_attn.q_proj.bias' in message
    assert len(plan(text, lenient=True).warnings) == 1


def test_missing_tensors_are_counted_per_model(here: Path) -> None:
    toys.write_llama(here / "a")
    toys.write_llama(here / "b", drop=[f"model.layers.{i}.mlp.up_proj.weight" for i in range(4)])
    (message,) = refuse(PAIR, ShapeError)
    assert message.startswith(
        '<recipe>:3:30: model "b" lacks 4 of the tensors that others have: "model.layers.0.mlp.up_proj.weight", '
    )
    made = plan(PAIR, lenient=True)
    task = next(task for task in made.tasks if task.name == "model.layers.0.mlp.up_proj.weight")
    assert task.labels == ("a",)
    assert task.inputs is not None


@pytest.mark.parametrize("lacking", ["base", "a"])
def test_lenient_copies_what_is_too_little_to_merge(here: Path, lacking: str) -> None:
    for name in ("base", "a"):
        toys.write_llama(here / name, drop=["model.norm.weight"] if name == lacking else [])
    made = plan("merge_method: slerp\nbase_model: base\nparameters: {t: 0.5}\nmodels: [{model: a}]\n", lenient=True)
    task = next(task for task in made.tasks if task.name == "model.norm.weight")
    assert (task.inputs, len(task.sources)) == (None, 1)


def test_places_skip_the_model_that_lacks_a_tensor(here: Path) -> None:
    for name in ("base", "a", "b"):
        toys.write_llama(here / name, drop=["model.norm.weight"] if name == "a" else [])
    made = plan(TIES % "weight: 1" + "- {model: b, parameters: {weight: 2}}\n", lenient=True)
    inputs = next(task.inputs for task in made.tasks if task.name == "model.norm.weight")
    assert inputs is not None
    assert (inputs.models, inputs.base, inputs.places, inputs.per_model["weight"]) == ((0,), 1, (1,), (2.0,))


def test_different_depths(here: Path) -> None:
    toys.write_llama(here / "a")
    toys.write_llama(here / "b", layers=3)
    (message,) = refuse(PAIR, ShapeError)
    assert message.startswith('<recipe>:3:10: the models have different numbers of layers: "a" 4, "b" 3')


def test_different_architectures_need_allow_crimes(here: Path) -> None:
    toys.write_llama(here / "a")
    toys.write_llama(here / "b", config={"architectures": ["MistralForCausalLM"]})
    (message,) = refuse(PAIR, lenient=True)
    assert message.startswith(
        '<recipe>:3:30: the models are of different architectures: "a" LlamaForCausalLM, "b" Mistral'
    )
    assert "--allow-crimes" in message
    (warning,) = plan(PAIR, allow_crimes=True).warnings
    assert "different architectures" in warning.message


def test_override_architecture_makes_models_alike(here: Path) -> None:
    toys.write_llama(here / "a")
    toys.write_llama(here / "b", config={"architectures": ["MistralForCausalLM"]})
    plan(PAIR.replace("{model: b}", "{model: {model: b, override_architecture: LlamaForCausalLM}}"))


def test_vocabulary_of_the_donor_must_fit_the_embedding(here: Path) -> None:
    toys.write_llama(here / "base", vocabulary=100)
    toys.write_llama(here / "a")
    (message,) = refuse(
        "merge_method: passthrough\nbase_model: base\nslices: [{sources: [{model: a, layer_range: [0, 4]}]}]\n",
        ShapeError,
    )
    assert message.startswith(
        '<recipe>:2:13: the merged "model.embed_tokens.weight" has 96 rows, config.json of "base" says vocab_size = 100'
    )


def test_a_donor_that_contradicts_itself_is_warned_of(here: Path) -> None:
    toys.write_llama(here / "a", config={"vocab_size": 90})
    (warning,) = plan("merge_method: passthrough\nmodels: [{model: a}]\n").warnings
    assert "says vocab_size = 90" in warning.message


def test_model_that_cannot_be_sliced(here: Path) -> None:
    toys.write_llama(here / "a", config={"num_hidden_layers": 5})
    (message,) = refuse("merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [0, 2]}]}]\n")
    assert message.startswith(
        '<recipe>:2:29: "a" cannot be sliced: model.layers has 4 layers, config.json says num_hidden_layers = 5'
    )


def test_donor_that_cannot_describe_slices(here: Path) -> None:
    toys.write_llama(here / "a")
    toys.write_stand_in(here / "base", {"architectures": ["LlamaForCausalLM"]}, {"w": ("F32", (4,))})
    (message,) = refuse(
        "merge_method: passthrough\nbase_model: base\nslices: [{sources: [{model: a, layer_range: [0, 2]}]}]\n"
    )
    assert message.startswith('<recipe>:2:13: "base" cannot be sliced: no complete stack of numbered layers')


@pytest.mark.parametrize("codes", [("F8_E4M3", "F8_E4M3"), ("I8", "F32"), ("I8", "I32")])
def test_types_that_cannot_be_merged(here: Path, codes: tuple[str, str]) -> None:
    for name, code in zip("ab", codes, strict=True):
        toys.write_stand_in(here / name, {"num_hidden_layers": 1}, {"model.layers.0.w": (code, (4, 4))})
    (message,) = refuse(PAIR, DTypeError)
    assert message.startswith('<recipe>:1:15: tensor "model.layers.0.w" has types that cannot be merged: "a" ')


def test_damaged_checkpoint_keeps_its_error(here: Path) -> None:
    toys.write_llama(here / "a")
    toys.write_llama(here / "b")
    (here / "b" / "config.json").write_text("{")
    (message,) = refuse(PAIR, FormatError)
    assert message.startswith("<recipe>:3:30: ")
    assert "config.json:1:2: not valid JSON" in message


def test_broken_order_in_config_json_is_warned_of(here: Path) -> None:
    toys.write_llama(here / "a", config={"sliding_window_pattern": 2})
    made = plan("merge_method: passthrough\nslices:\n- sources: [{model: a, layer_range: [1, 4]}]\n")
    (warning,) = made.warnings
    assert "sliding_window_pattern makes one layer in 2 of another kind" in warning.message


@pytest.mark.parametrize(("method", "switch"), [("linear", "normalize"), ("multislerp", "normalize_weights")])
def test_weights_without_a_sum_are_refused_tensor_by_tensor(family: Path, method: str, switch: str) -> None:
    models = "models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: -1}}]\n"
    message = "\n".join(refuse(f"merge_method: {method}\n{models}"))
    assert f"{method}: the weights of model.layers.0" in message
    assert f"set {switch}: false" in message
