"""Models whose files contradict each other, and models that only look so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from safetensors.numpy import save_file

from pymerge.config import load_recipe
from pymerge.errors import FormatError
from pymerge.plan import MergePlan, make_plan

ALONE = "merge_method: passthrough\nmodels:\n- {model: a}\n"


def plan(text: str = ALONE, **options: Any) -> MergePlan:
    return make_plan(load_recipe(text), **options)


def write(here: Path, **changes: Any) -> None:
    toys.write_llama(here / "a", **{"layers": 3, "width": 8, "vocabulary": 24, **changes})


def drop_layers(*layers: int) -> list[str]:
    shapes = toys.llama_shapes(layers=3, width=8, inner=8, vocabulary=24)
    return [name for name in shapes if any(f".layers.{layer}." in name for layer in layers)]


@pytest.mark.parametrize("config", [{}, {"num_hidden_layers": 2}, {"num_hidden_layers": None}])
def test_a_missing_layer_between_others_is_told_by_its_number(here: Path, config: dict[str, Any]) -> None:
    write(here, drop=drop_layers(1), config=config)
    said = r'<recipe>:3:11: "a" lacks layer 1 of model.layers, and has later ones \(download it again'
    with pytest.raises(FormatError, match=said):
        plan()
    assert any("lacks layer 1" in str(warning) for warning in plan(lenient=True).warnings)


def test_one_tensor_far_behind_the_last_layer_leaves_layers_out(here: Path) -> None:
    write(here, extra={"model.layers.1000000000000.x": np.ones(3, np.float32)})
    with pytest.raises(FormatError, match=r'"a" lacks layers 3, 4, 5, \.\.\. of model.layers'):
        plan()


def test_modules_in_a_row_some_of_which_have_no_weights_are_no_layers(here: Path) -> None:
    gaps = {f"projector.{at}.{end}": np.ones(8, np.float32) for at in (0, 2) for end in ("weight", "bias")}
    write(here, extra=gaps)
    assert plan().warnings == ()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"num_hidden_layers": 5}, "num_hidden_layers = 5, its weights have 3 layers (model.layers)"),
        ({"num_hidden_layers": 1}, "num_hidden_layers = 1, its weights have 3 layers (model.layers)"),
        ({"num_hidden_layers": 10**60}, f"= 1{'0' * 29}..., its"),
        ({"hidden_size": 64}, 'hidden_size = 64, its weights have 8 columns in "model.embed_tokens.weight"'),
        ({"num_hidden_layers": None, "text_config": {"num_hidden_layers": 3, "hidden_size": 9}},
         "text_config.hidden_size = 9, its weights have 8 columns"),
    ],
)  # fmt: skip
def test_numbers_of_config_json_that_the_weights_contradict_are_warned_of(
    here: Path, config: dict[str, Any], said: str
) -> None:
    write(here, config=config)
    (warning,) = plan().warnings
    assert str(warning).startswith('<recipe>:3:11: config.json of "a" says ')
    assert said in str(warning)
    assert "the model itself is inconsistent; the output is like it" in str(warning)


@pytest.mark.parametrize(
    "config",
    [
        {"hidden_size": 8},
        {"num_hidden_layers": 2, "num_nextn_predict_layers": 1},
        {"num_hidden_layers": None, "vision_config": {"num_hidden_layers": 24, "hidden_size": 1024}},
        {"num_hidden_layers": None, "vision_config": {"num_hidden_layers": 3, "hidden_size": 1024}},
        {"num_hidden_layers": "5", "hidden_size": "64"},
        {"tie_word_embeddings": True},
    ],
)
def test_what_config_json_says_of_something_else_is_no_contradiction(here: Path, config: dict[str, Any]) -> None:
    write(here, config=config)
    assert plan().warnings == ()


def test_an_embedding_of_another_width_than_the_layers_is_no_contradiction(here: Path) -> None:
    embedding = {"model.embed_tokens.weight": np.ones((24, 4), np.float32)}
    write(here, config={"hidden_size": 8}, extra=embedding)
    assert plan().warnings == ()


def test_a_head_that_config_json_promises_is_missed(here: Path) -> None:
    write(here, head=False)
    (warning,) = plan().warnings
    assert 'config.json of "a" says tie_word_embeddings = false, and it has no output head (lm_head)' in str(warning)


@pytest.mark.parametrize(
    ("config", "extra"),
    [
        ({"tie_word_embeddings": True}, {}),
        ({"tie_word_embeddings": None}, {}),
        ({"architectures": ["LlamaModel"]}, {}),
        ({"architectures": ["LlamaForSequenceClassification"]}, {"score.weight": np.ones((2, 8), np.float32)}),
        ({}, {"strange_output.weight": np.ones((24, 8), np.float32)}),
    ],
)
def test_a_model_that_has_no_head_or_another_one_is_fine(
    here: Path, config: dict[str, Any], extra: dict[str, Any]
) -> None:
    write(here, head=False, config=config, extra=extra)
    assert plan().warnings == ()


@pytest.mark.parametrize("family", toys.FAMILIES)
def test_models_as_they_are_saved_contradict_nothing(toy: Callable[..., Path], family: str) -> None:
    assert plan(ALONE.replace("a}", f'"{toy(family)}"}}')).warnings == ()


def test_models_with_different_adapters_are_different_models(here: Path) -> None:
    write(here)
    for name in ("x", "y"):
        (here / name).mkdir()
        (here / name / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
        save_file({"model.norm.weight": np.ones(8, np.float32)}, here / name / "adapter_model.safetensors")
    text = "merge_method: task_arithmetic\nbase_model: a\nparameters: {weight: 1}\nmodels:\n"
    assert plan(text + "- {model: a+x}\n- {model: a+y}\n").warnings == ()
    (warning,) = plan(text + "- {model: a+x}\n- {model: a+./x}\n").warnings
    assert '"a+./x" and "a+x" are the same model (name it one way throughout)' in str(warning)
