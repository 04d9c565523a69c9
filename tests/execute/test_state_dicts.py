"""Models in memory merge to the bytes that files merge to, and are refused for the same reasons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from execute.merges import METHODS, make_recipe, random_tensors, run, schedule, write_models
from safetensors import deserialize

import pymerge
from pymerge.errors import DTypeError, RecipeError, ShapeError

MODELS = [random_tensors(seed) for seed in range(4)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_models(tmp_path_factory.mktemp("models"), MODELS)


def from_files(folder: Path, recipe: dict[str, Any], **options: Any) -> dict[str, tuple[str, list[int], bytes]]:
    """Type, shape and bytes of each tensor of a merge on disk."""
    files = run(schedule(recipe, **options), folder / "out").files.values()
    found = (item for content in files for item in deserialize(content))
    return {name: (view["dtype"], list(view["shape"]), bytes(view["data"])) for name, view in found}


def in_memory(method: str, models: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    """The same models, the base first where there is one, by one of METHODS."""
    count, based, shared, each = METHODS[method]
    base = models[0] if based else None
    tuned = models[based : based + count]
    parameters = {**shared, **{name: [value] * count for name, value in each.items()}}
    return pymerge.merge_state_dicts(method.partition("-")[0], tuned, base=base, parameters=parameters, **options)


def content(merged: dict[str, Any]) -> dict[str, tuple[str, list[int], bytes]]:
    """The same of arrays."""
    codes = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
    return {name: (codes[str(a.dtype)], list(a.shape), a.tobytes()) for name, a in merged.items()}


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize("method", METHODS)
def test_same_bytes_as_files(tmp_path: Path, folders: list[Path], method: str, dtype: str | None, backend: str) -> None:
    merged = in_memory(method, MODELS, dtype=dtype, backend=backend)
    assert content(merged) == from_files(tmp_path, make_recipe(method, folders, dtype=dtype))


@pytest.mark.parametrize("scope", ["tensor", "layer", "global"])
def test_magnitudes_of_several_tensors_are_trimmed_together(tmp_path: Path, folders: list[Path], scope: str) -> None:
    recipe = make_recipe("ties", folders, parameters={"trim_scope": scope})
    parameters = {"weight": 0.6, "density": 0.5, "trim_scope": scope}
    # In any order: ties at a cut go to the first tensors by name.
    base, *tuned = (dict(reversed(model.items())) for model in MODELS[:3])
    merged = pymerge.merge_state_dicts("ties", tuned, base=base, parameters=parameters)
    assert content(merged) == from_files(tmp_path, recipe)


def test_tensors_that_a_model_lacks_keep_the_others_places(tmp_path: Path) -> None:
    models = [dict(model) for model in MODELS[:3]]
    del models[1]["layers.1.weight"], models[0]["layers.0.bias"], models[1]["embed"], models[2]["embed"]
    with pytest.raises(ShapeError, match=r'model 0 lacks 2 of the tensors .*"layers\.1\.weight".* lenient=True'):
        in_memory("dare_ties", models)
    recipe = make_recipe("dare_ties", write_models(tmp_path, models))
    assert content(in_memory("dare_ties", models, lenient=True)) == from_files(tmp_path, recipe, lenient=True)


def test_buffers_and_integers_are_copied() -> None:
    def model(scale: float, ids: int) -> dict[str, Any]:
        return {
            "w": np.full((2, 3), scale, np.float32),
            "rotary_emb.inv_freq": np.full(4, scale, np.float16),
            "ids": np.arange(3) + ids,
        }

    merged = pymerge.merge_state_dicts("linear", [model(1, 0), model(3, 0)], parameters={"weight": 1}, dtype="bfloat16")
    assert {name: (str(array.dtype), array.reshape(-1)[0]) for name, array in merged.items()} == {
        "w": ("bfloat16", 2.0),
        "rotary_emb.inv_freq": ("float16", 1.0),
        "ids": ("int64", 0),
    }
    with pytest.raises(DTypeError, match=r'"ids": element 0 differs between model 0 and model 1'):
        pymerge.merge_state_dicts("linear", [model(1, 0), model(3, 1)], parameters={"weight": 1})


def test_torch_tensors_give_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    arrays = [{"w": (np.arange(6, dtype=np.float32) * step).reshape(2, 3)} for step in (1, 2, 4)]
    for kind in (torch.bfloat16, torch.float32):
        base, *tuned = ({"w": torch.from_numpy(model["w"]).to(kind)} for model in arrays)
        merged = pymerge.merge_state_dicts("task_arithmetic", tuned, base=base, parameters={"weight": [0.5, 0.25]})
        assert merged["w"].dtype == kind
        assert torch.equal(merged["w"], (torch.from_numpy(arrays[0]["w"]) * (1 + 0.5 + 0.75)).to(kind))


def test_what_is_given_is_neither_changed_nor_shared() -> None:
    model = {"w": np.arange(4, dtype=np.float32), "ids": np.arange(3)}
    merged = pymerge.merge_state_dicts("passthrough", [model])
    for array in merged.values():
        array += 1
    assert model["w"].tolist() == [0, 1, 2, 3]
    assert model["ids"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("method", "count", "changes", "error", "message"),
    [
        ("tise", 2, {}, RecipeError, 'unknown method "tise"'),
        ("ties", 2, {"base": None}, RecipeError, "ties needs a base"),
        ("slerp", 2, {"parameters": {"t": 0.5}}, RecipeError, "slerp takes exactly 1"),
        ("ties", 2, {"parameters": {"weights": 1}}, RecipeError, "ties does not read weights; .*weight"),
        ("ties", 2, {"parameters": {}}, RecipeError, "ties needs weight"),
        ("ties", 2, {"parameters": {"weight": [1, 2, 3]}}, RecipeError, "weight has 3 values for 2"),
        ("ties", 2, {"parameters": {"weight": 1, "density": 2}}, RecipeError, "density = 2"),
        ("ties", 2, {"dtype": "int8"}, DTypeError, "int8"),
        ("linear", 0, {"base": None}, RecipeError, "linear takes at least 1"),
    ],
)
def test_mistakes_are_refused(
    method: str, count: int, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    settings: dict[str, Any] = {"base": MODELS[0], "parameters": {"weight": 1}, **changes}
    with pytest.raises(error, match=message):
        pymerge.merge_state_dicts(method, MODELS[1 : 1 + count], **settings)


def test_shapes_and_types_that_do_not_fit_are_named() -> None:
    one = {"a": np.zeros(3, np.float32), "b": np.zeros((2, 2), ml_dtypes.bfloat16)}
    with pytest.raises(ShapeError, match=r'shapes differ in 1 tensors: "a": model 0 \[3\], model 1 \[4\]'):
        pymerge.merge_state_dicts("linear", [one, {**one, "a": np.zeros(4, np.float32)}], parameters={"weight": 1})
    with pytest.raises(DTypeError, match=r'"b" has types that cannot be merged: model 0 bfloat16, model 1 complex64'):
        pymerge.merge_state_dicts("linear", [one, {**one, "b": np.zeros((2, 2), "c8")}], parameters={"weight": 1})
