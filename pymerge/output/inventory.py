"""What a model on disk holds, from its headers and its config.json."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from pymerge.checkpoint import infer_architecture, open_checkpoint
from pymerge.checkpoint.kinds import is_gguf, is_pickled
from pymerge.checkpoint.sources import list_stored
from pymerge.checkpoint.weights import open_file
from pymerge.config.values import ModelRef

__all__ = ["take_inventory"]


def take_inventory(model: str) -> dict[str, Any]:
    """Describe a model folder or one weight file, as plain values; sizes in bytes.

    Raises:
        RecipeError: there is no such model.
        FormatError: a header is damaged.
    """
    # os.path, unlike pathlib, answers no for paths that cannot exist (too long, unknown ~user).
    path = os.path.expanduser(model)
    single = os.path.isfile(path) and not is_gguf(path)
    checkpoint = (open_file if single else open_checkpoint)(ModelRef(model))
    tensors = sorted(checkpoint.tensors.values(), key=lambda tensor: tensor.name)
    architecture = infer_architecture(checkpoint)
    return {
        "model": model,
        "architecture": architecture.label,
        "layers": {stack.prefix: stack.count for stack in architecture.stacks},
        "count": len(tensors),
        "dtypes": dict(Counter(tensor.dtype.name for tensor in tensors)),
        "parameters": sum(tensor.count for tensor in tensors),
        "nbytes": sum(tensor.nbytes for tensor in tensors),
        "files": len(checkpoint.files),
        "formats": sorted({_name_format(path) for path, *_ in checkpoint.files}),
        "tensors": [
            {
                "name": tensor.name,
                "dtype": tensor.dtype.name,
                "shape": list(tensor.shape),
                "nbytes": tensor.nbytes,
                "file": Path(stored.path).name,
                "offset": stored.offset,
            }
            for tensor in tensors
            for stored in (next(list_stored(tensor)),)
        ],
    }


def _name_format(path: Path) -> str:
    return "gguf" if is_gguf(path) else "pickle" if is_pickled(path) else "safetensors"
