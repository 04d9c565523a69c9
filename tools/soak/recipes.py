"""Random models, and random recipes from what the methods declare."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from pymerge.methods import get_method
from pymerge.methods.base import REQUIRED, BaseRule, Method, Parameter

__all__ = ["make_recipe", "write_models"]

MODELS = 4
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
#: Of a "layer" each; odd sizes, so that tensors meet in the middle of pages and blocks.
_SHAPES: dict[str, tuple[int, ...]] = {
    "attention.weight": (257, 129),
    "mlp.weight": (801, 400),
    "norm.weight": (129,),
    "scale": (),
}
LAYERS = 6


def write_models(folder: Path, seed: int) -> dict[str, list[Path]]:
    """`MODELS` models near a common origin in each of `DTYPES`; the first of a type is the base."""
    shapes = {f"layers.{layer}.{name}": shape for layer in range(LAYERS) for name, shape in _SHAPES.items()}
    shapes["embed.weight"] = (1000, 129)
    origin = {name: np.random.default_rng(seed).standard_normal(shape) * 0.05 for name, shape in shapes.items()}
    models: dict[str, list[Path]] = {}
    for number in range(MODELS):
        own = np.random.default_rng((seed, number))
        values = {name: origin[name] + 0.01 * own.standard_normal(shape) for name, shape in shapes.items()}
        for dtype, kind in DTYPES.items():
            path = folder / f"{dtype}-{number}"
            path.mkdir(parents=True)
            tensors = {name: np.asarray(value, kind) for name, value in values.items()}
            tensors["positions"] = np.arange(77)
            save_file(tensors, path / "model.safetensors", {"format": "pt"})
            config = {"model_type": "toy", "num_hidden_layers": LAYERS, "torch_dtype": dtype}
            (path / "config.json").write_text(json.dumps(config))
            models.setdefault(dtype, []).append(path)
    return models


def make_recipe(method: Method | str, models: dict[str, list[Path]], random: Random) -> dict[str, Any]:
    """A recipe that the method's declaration permits; some are refused for what the numbers say together."""
    method = get_method(method) if isinstance(method, str) else method
    folders = [models[random.choice(list(DTYPES))][number] for number in range(MODELS)]
    alone = method.base in (BaseRule.INPUT, BaseRule.SELF)
    count = random.randint(method.minimum, min(method.maximum or 3, MODELS if alone else MODELS - 1, 3))
    based = method.base is BaseRule.REQUIRED or (method.base is BaseRule.OPTIONAL and random.random() < 0.5)
    listed = folders[:count] if not based else folders[1 : 1 + count]
    if method.name == "slerp":
        listed = folders[:2]
    recipe: dict[str, Any] = {
        "merge_method": method.name,
        "models": [{"model": str(folder), "parameters": _draw(method, random, per_model=True)} for folder in listed],
        "parameters": _draw(method, random, per_model=False),
        "dtype": random.choice(list(DTYPES)),
    }
    if based:
        recipe["base_model"] = str(folders[0])
    return recipe


def _draw(method: Method, random: Random, *, per_model: bool) -> dict[str, Any]:
    chosen = (each for each in method.parameters if each.per_model == per_model)
    return {each.name: _value(each, random) for each in chosen if each.default is REQUIRED or random.random() < 0.5}


def _value(parameter: Parameter, random: Random) -> Any:
    if parameter.choices:
        return random.choice(parameter.choices)
    if parameter.kind is bool:
        return random.random() < 0.5
    low = 0.05 if parameter.minimum is None else parameter.minimum + 0.05
    high = low + 1 if parameter.maximum is None else parameter.maximum - 0.05
    if parameter.kind is int:
        return random.randint(int(low) + 1, max(int(low) + 1, min(int(high), 20)))
    return round(random.uniform(low, high), 3)
