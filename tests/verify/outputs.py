"""Finished merges of small models, and ways to damage them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import toys

import pymerge
from pymerge import _core
from pymerge.checkpoint import StoredTensor
from pymerge.verify.reading import open_model
from pymerge.verify.values import Check, Verification

BF16 = ml_dtypes.bfloat16
INDEX, MANIFEST = "model.safetensors.index.json", "pymerge_manifest.json"
LAYERS = 2


def make_models(folder: Path, count: int = 2, **changes: Any) -> list[Path]:
    """Small Llama-like models with all that config.json can say of their tensors."""
    config = {"hidden_size": toys.WIDTH, "torch_dtype": "bfloat16"}
    settings: dict[str, Any] = {"layers": LAYERS, "dtype": BF16, "config": config, **changes}
    return [toys.write_llama(folder / f"model{seed}", seed=seed, **settings) for seed in range(count)]


def make_output(folder: Path, *, models: list[Path] | None = None, shard_size: int = 20_000, **options: Any) -> Path:
    """A linear merge in several files."""
    models = models or make_models(folder)
    recipe = {
        "merge_method": "linear",
        "models": [{"model": str(model), "parameters": {"weight": 0.5}} for model in models],
    }
    pymerge.merge(recipe, folder / "out", shard_size=shard_size, **options)
    return folder / "out"


def find(found: Verification, name: str) -> Check:
    """The check of this name."""
    return next(check for check in found.checks if check.name == name)


def failed(found: Verification) -> set[str]:
    """Names of the checks that failed."""
    return {check.name for check in found.checks if check.status.value == "failed"}


def messages(found: Verification, name: str) -> str:
    """What a check has to say, line by line."""
    check = find(found, name)
    return "\n".join(map(str, (*check.wrong, *check.unchecked)))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def stored(folder: Path, name: str) -> StoredTensor:
    """Where a tensor of an output is."""
    return open_model(str(folder)).tensors[name]


def overwrite(tensor: StoredTensor, index: int, value: bytes) -> None:
    """Replace the element at a flat index."""
    with Path(tensor.path).open("r+b") as file:
        file.seek(tensor.offset + index * tensor.dtype.itemsize)
        file.write(value)


def fix_digest(folder: Path, tensor: StoredTensor) -> None:
    """Have the manifest say that a tensor's bytes are what was written."""
    (digest,) = _core.digest_ranges(tensor.path, [(tensor.offset, tensor.nbytes)], 1)
    edit(folder / MANIFEST, lambda values: values["digests"].update({tensor.name: digest}))


def bf16(value: float) -> bytes:
    """The bytes of a bfloat16."""
    return np.array([value], BF16).tobytes()
