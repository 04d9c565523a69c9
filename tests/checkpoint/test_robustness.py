"""Whatever the small files of a model hold: the model is planned, or refused with one of pymerge's errors."""

from __future__ import annotations

import contextlib
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import toys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pymerge
from pymerge.checkpoint import infer_architecture, open_checkpoint
from pymerge.config import ModelRef
from pymerge.errors import PymergeError

#: Keys of config.json that something is read from, and words of an index.
KEYS = st.sampled_from(
    ["num_hidden_layers", "n_layer", "encoder_layers", "text_config", "vision_config", "vocab_size", "torch_dtype",
     "dtype", "tie_word_embeddings", "architectures", "model_type", "layer_types", "hybrid_override_pattern",
     "mlp_only_layers", "first_k_dense_replace", "max_window_layers", "use_sliding_window", "sliding_window_pattern",
     "attention_types", "attention_layers", "quantization_config", "quant_method", "weight_map", "metadata", "extra"]
)  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 5), st.integers(), st.floats(), st.text(max_size=4),
    st.sampled_from(["gemma2", "MMMM", "float16", "\ud800", "w", "model.safetensors", "..", 10**30]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=10,
)
#: A config of everything that is rearranged with the layers.
CONFIG: dict[str, Any] = {
    **toys.llama_config(4),
    "layer_types": ["a", "b", "a", "b"],
    "hybrid_override_pattern": "MM*M",
    "mlp_only_layers": [1, 3],
    "first_k_dense_replace": 2,
    "max_window_layers": 2,
    "sliding_window_pattern": 2,
    "attention_types": [[["a"], 4]],
    "attention_layers": ["a", "a", "a", "a"],
    "text_config": {"num_hidden_layers": 4, "layer_types": ["a", "b", "a", "b"]},
}
INDEX = "model.safetensors.index.json"
#: Some changes of a valid value: where (a path of keys), and what stands there then.
EDITS = st.lists(st.tuples(st.lists(KEYS, min_size=1, max_size=2), VALUES), min_size=1, max_size=3)
MANY = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of four layers; what is written over is the second one's."""
    folder = tmp_path_factory.mktemp("models")
    shapes = toys.llama_shapes(layers=4, width=4, inner=4, vocabulary=8)
    for name in ("first", "second"):
        toys.write_stand_in(folder / name, CONFIG, {name: ("BF16", shape) for name, shape in shapes.items()})
    return folder


def edit(value: dict[str, Any], edits: list[tuple[list[str], Any]]) -> dict[str, Any]:
    """A copy with other values here and there."""
    made = deepcopy(value)
    for path, new in edits:
        holder: Any = made
        for key in path[:-1]:
            if not isinstance(holder.get(key), dict):
                holder[key] = {}
            holder = holder[key]
        holder[path[-1]] = new
    return made


def use(folder: Path) -> None:
    """Open and plan: the second model alone, merged with the first, and stacked with it, either being the donor."""
    first, second = str(folder / "first"), str(folder / "second")
    with contextlib.suppress(PymergeError):
        infer_architecture(open_checkpoint(ModelRef(second)))
    weight = {"parameters": {"weight": 1}}
    for models in ([first, second], [second, first]):
        merged = {"merge_method": "linear", "models": [{"model": model, **weight} for model in models]}
        slices = [{"sources": [{"model": model, "layer_range": [1, 3]}]} for model in models]
        for recipe in (merged, {"merge_method": "passthrough", "slices": slices}):
            with contextlib.suppress(PymergeError):
                json.dumps(dict(pymerge.plan(recipe, lenient=True).model_config))


@MANY
@given(value=VALUES)
def test_any_value_as_config(models: Path, value: Any) -> None:
    (models / "second" / "config.json").write_text(json.dumps(value))
    use(models)


@MANY
@given(edits=EDITS)
def test_any_change_of_a_config(models: Path, edits: Any) -> None:
    (models / "second" / "config.json").write_text(json.dumps(edit(CONFIG, edits)))
    use(models)


@MANY
@given(text=st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_any_bytes_as_config(models: Path, text: bytes) -> None:
    (models / "second" / "config.json").write_bytes(text)
    with contextlib.suppress(PymergeError):
        open_checkpoint(ModelRef(str(models / "second")))


@MANY
@given(value=VALUES | st.fixed_dictionaries({"weight_map": st.dictionaries(st.text(max_size=3), SCALARS | VALUES)}))
def test_any_value_as_index(models: Path, value: Any) -> None:
    (models / "second" / "config.json").write_text(json.dumps(CONFIG))
    (models / "second" / INDEX).write_text(json.dumps(value))
    try:
        use(models)
    finally:
        (models / "second" / INDEX).unlink()


@MANY
@given(edits=st.lists(st.tuples(st.integers(0, 40), SCALARS | VALUES), max_size=3))
def test_any_change_of_an_index(models: Path, edits: Any) -> None:
    second = models / "second"
    (second / "config.json").write_text(json.dumps(CONFIG))
    weight_map: dict[str, Any] = {
        f"{name}": "model.safetensors" for name in toys.llama_shapes(layers=4, width=4, inner=4, vocabulary=8)
    }
    for place, value in edits:
        weight_map[list(weight_map)[place % len(weight_map)]] = value
    (second / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    try:
        use(models)
    finally:
        (second / INDEX).unlink()
