"""Stacked models of real families load with every tensor in place, and nothing left over."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import toys
import transformers

from pymerge.config import load_recipe
from pymerge.errors import RecipeError
from pymerge.plan import MergePlan, make_plan

DENSE = [family for family in toys.FAMILIES if family != "t5"]


def stack(model: Path, *ranges: tuple[int, int]) -> MergePlan:
    slices = [{"sources": [{"model": {"model": {"path": model}}, "layer_range": piece}]} for piece in ranges]
    return make_plan(load_recipe({"merge_method": "passthrough", "slices": slices}))


def write(plan: MergePlan, folder: Path) -> Path:
    """Carry out a plan that only copies, by hand."""
    folder.mkdir()
    header, _ = toys.header_bytes({task.name: (task.dtype.code, task.shape) for task in plan.tasks})
    with (folder / "model.safetensors").open("wb") as out:
        out.write(header)
        for task in plan.tasks:
            stored = task.sources[0]
            out.write(Path(stored.path).read_bytes()[stored.offset : stored.offset + stored.nbytes])
    (folder / "config.json").write_text(json.dumps(dict(plan.model_config)))
    return folder


def load(family: str, folder: Path) -> torch.nn.Module:
    """Load with transformers and check that names fit exactly."""
    model_class = getattr(transformers, toys.FAMILIES[family][0])
    model, info = model_class.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    loaded: torch.nn.Module = model
    return loaded


@pytest.mark.parametrize("family", DENSE)
def test_stacked_layers_load(toy: Callable[..., Path], tmp_path: Path, family: str) -> None:
    plan = stack(toy(family), (0, 3), (1, 4))
    old, new = load(family, toy(family)), load(family, write(plan, tmp_path / "out"))
    number = re.compile(r"(?<=\.)\d+(?=\.)")
    weights = dict(old.named_parameters())
    for name, weight in new.named_parameters():
        place = number.search(name)
        origin = name if place is None else number.sub(str((0, 1, 2, 1, 2, 3)[int(place[0])]), name, count=1)
        assert torch.equal(weight, weights[origin]), name


@pytest.mark.parametrize("family", toys.FAMILIES)
def test_no_tensor_is_dropped(toy: Callable[..., Path], family: str) -> None:
    text = f"merge_method: passthrough\nmodels: [{{model: {{model: {{path: {toy(family)}}}}}}}]\n"
    plan = make_plan(load_recipe(text))
    assert {task.name for task in plan.tasks} == set(plan.models[0].tensors)
    assert plan.model_config == plan.models[0].config


@pytest.mark.parametrize(
    ("family", "kinds"),
    [("qwen2", "ffsfss"), ("qwen3", "ffffff"), ("gemma2", "sfsfsf")],
)
def test_layer_types_follow(toy: Callable[..., Path], family: str, kinds: str) -> None:
    config = stack(toy(family), (0, 3), (1, 4)).model_config
    assert "".join(kind[0] for kind in config["layer_types"]) == kinds


def test_encoder_decoder_is_not_sliced(toy: Callable[..., Path]) -> None:
    with pytest.raises(RecipeError, match="cannot be sliced: the model has several stacks of layers"):
        stack(toy("t5"), (0, 2))
