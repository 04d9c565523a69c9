"""`open_checkpoint`: a model reference -> what its folder holds, from headers and config.json alone."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from pymerge.checkpoint.adapters import adapt
from pymerge.checkpoint.dequantizing import dequantize
from pymerge.checkpoint.gguf import is_gguf, open_gguf
from pymerge.checkpoint.index import INDEX, PICKLED_INDEX, read_index
from pymerge.checkpoint.json_files import read_json
from pymerge.checkpoint.tying import drop_tied
from pymerge.checkpoint.values import Checkpoint, StoredTensor
from pymerge.checkpoint.weights import describe_file, read_weights
from pymerge.config.values import ModelRef
from pymerge.errors import FormatError, Problem, RecipeError

__all__ = ["open_checkpoint"]

_SINGLE = "model.safetensors"
_PICKLED = "pytorch_model.bin"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

#: What a folder without these weights may hold instead -> what to do about it.
_OTHER_WEIGHTS = {
    "adapter_config.json": "it holds a LoRA adapter: name it with its model, as model: path/to/model+path/to/adapter",
    "*.pth": "it holds .pth files in a layout of their own: convert them to the transformers layout first",
    "*.gguf": "it holds GGUF files: name one, as model: path/to/file.gguf",
    "*.safetensors": f"its weight files have other names: expected {_SINGLE} or {INDEX}",
    "*.bin": f"its .bin files have other names: expected {_PICKLED} or {PICKLED_INDEX}",
}


def open_checkpoint(ref: ModelRef) -> Checkpoint:
    """Look into a model folder, or a GGUF file: headers and config.json, no weights.

    Args:
        ref: names a local folder, or a GGUF file, absolute or relative to the working directory.

    Raises:
        RecipeError: there is no such folder (hub ids must be downloaded first).
        FormatError: the folder is no complete checkpoint, or a file is damaged.
        DTypeError: the checkpoint is quantized in a way that is not dequantized, or a pickled file holds what
            cannot be merged.
    """
    # os.path, unlike pathlib, answers no for paths that cannot exist (too long, unknown ~user).
    folder = Path(os.path.expanduser(ref.path))
    if is_gguf(folder) and os.path.isfile(folder):
        checkpoint = open_gguf(ref)
        return adapt(checkpoint, ref.lora) if ref.lora else checkpoint
    if not os.path.isdir(folder):
        _refuse_path(ref, folder)
    folder = folder.resolve()
    tensors, files = _read_weights(folder)
    config: Mapping[str, Any] = read_json(folder / "config.json")
    weights, config, scheme = dequantize(folder, drop_tied(tensors, config), config)
    remarks = (f'"{ref.path}" is quantized ({scheme}): its weights are dequantized',) if scheme else ()
    checkpoint = Checkpoint(ref, folder, weights, config, tuple(map(describe_file, files)), remarks)
    return adapt(checkpoint, ref.lora) if ref.lora else checkpoint


def _read_weights(folder: Path) -> tuple[dict[str, StoredTensor], tuple[Path, ...]]:
    """Safetensors come first, and an index before a single file."""
    for index, single in ((INDEX, folder / _SINGLE), (PICKLED_INDEX, folder / _PICKLED)):
        if os.path.isfile(folder / index):
            return read_index(folder / index)
        if os.path.isfile(single):
            return read_weights(single), (single,)
        if os.path.lexists(single):
            raise FormatError(f"{single}: is no regular file, or a link that leads nowhere; is the download complete?")
    for pattern, advice in _OTHER_WEIGHTS.items():
        if any(folder.glob(pattern)):
            raise FormatError(f"{folder}: no {_SINGLE} here; {advice}")
    raise FormatError(f"{folder}: no {_SINGLE} and no {INDEX} here; is the download complete?")


def _refuse_path(ref: ModelRef, folder: Path) -> NoReturn:
    if os.path.exists(folder):
        advice = "name the folder that holds it; pymerge merge-files merges single files"
        problem = Problem(f'model "{ref.path}" is a file', ref.where, advice)
    elif is_gguf(folder):
        problem = Problem(f'model "{ref.path}": there is no such file', ref.where, f"looked for {folder.absolute()}")
    elif _HUB_ID.fullmatch(ref.path):
        revision = f" --revision {ref.revision}" if ref.revision else ""
        problem = Problem(
            f'model "{ref.path}" is not a folder here, and pymerge does not download',
            ref.where,
            f"run: hf download {ref.path}{revision} --local-dir {ref.path}",
        )
    else:
        problem = Problem(f'model "{ref.path}": there is no such folder', ref.where, f"looked for {folder.absolute()}")
    raise RecipeError([problem])
