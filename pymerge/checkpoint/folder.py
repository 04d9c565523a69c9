"""`open_checkpoint`: a model reference -> what its folder holds, from headers and config.json alone."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from pymerge.checkpoint.dequantizing import dequantize
from pymerge.checkpoint.index import INDEX, PICKLED_INDEX, read_index
from pymerge.checkpoint.json_files import read_json
from pymerge.checkpoint.kinds import is_gguf
from pymerge.checkpoint.remote import Locate, Place, Remote, is_there
from pymerge.checkpoint.tying import drop_tied
from pymerge.checkpoint.values import Checkpoint, StoredTensor
from pymerge.checkpoint.weights import describe_file, read_weights
from pymerge.config.values import ModelRef
from pymerge.errors import FormatError, Problem, RecipeError

__all__ = ["PICKLED", "SINGLE", "add_adapter", "is_hub_id", "open_checkpoint"]

SINGLE = "model.safetensors"
PICKLED = "pytorch_model.bin"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

#: What a folder without these weights may hold instead -> what to do about it.
_OTHER_WEIGHTS = {
    "adapter_config.json": "it holds a LoRA adapter: name it with its model, as model: path/to/model+path/to/adapter",
    "*.pth": "it holds .pth files in a layout of their own: convert them to the transformers layout first",
    "*.gguf": "it holds GGUF files: name one, as model: path/to/file.gguf",
    "*.safetensors": f"its weight files have other names: expected {SINGLE} or {INDEX}",
    "*.bin": f"its .bin files have other names: expected {PICKLED} or {PICKLED_INDEX}",
}


def is_hub_id(path: str) -> bool:
    """Whether a path has the form `owner/name`, by which a hub names models."""
    return _HUB_ID.fullmatch(path) is not None


def open_checkpoint(ref: ModelRef, locate: Locate | None = None) -> Checkpoint:
    """Look into a model folder, or a GGUF file: headers and config.json, no weights.

    Args:
        ref: names a local folder, or a GGUF file, absolute or relative to the working directory, or a model of a hub.
        locate: finds models of a hub; without it, those are refused. What is here comes first.

    Raises:
        RecipeError: there is no such model.
        FormatError: the folder is no complete checkpoint, or a file is damaged.
        DTypeError: the checkpoint is quantized in a way that is not dequantized, or a pickled file holds what
            cannot be merged.
    """
    path = Path(os.path.expanduser(ref.path))
    if is_gguf(path) and os.path.isfile(path):
        # Formats that few models have are loaded for them only.
        from pymerge.checkpoint.gguf import open_gguf

        return add_adapter(open_gguf(ref), ref, locate)
    place = _find(ref, locate)
    folder = place.folder.resolve()
    tensors, files = _read_weights(folder, place.remote)
    config: Mapping[str, Any] = read_json(folder / "config.json")
    weights, config, scheme = dequantize(folder, drop_tied(tensors, config), config)
    notes = (f'"{ref.path}" is quantized ({scheme}): its weights are dequantized',) if scheme else ()
    described = tuple(describe_file(file, place.remote) for file in files)
    checkpoint = Checkpoint(ref, folder, weights, config, described, place.remote, (*place.notes, *notes))
    return add_adapter(checkpoint, ref, locate)


def add_adapter(checkpoint: Checkpoint, ref: ModelRef, locate: Locate | None = None) -> Checkpoint:
    """The checkpoint with the adapter that a reference names, if it does; raises as `open_checkpoint`."""
    if not ref.lora:
        return checkpoint
    from pymerge.checkpoint.adapters import adapt

    return adapt(checkpoint, _find_adapter(ref.lora, ref, locate))


def _find(ref: ModelRef, locate: Locate | None) -> Place:
    # os.path, unlike pathlib, answers no for paths that cannot exist (too long, unknown ~user).
    folder = Path(os.path.expanduser(ref.path))
    if not os.path.isdir(folder):
        if locate is None or os.path.exists(folder) or not is_hub_id(ref.path):
            _refuse_path(ref, folder)
        return _ask(locate, ref.path, ref.revision, False, ref)
    note = f'"{ref.path}" is a local folder: its revision is not checked'
    return Place(folder, notes=(note,) if ref.revision else ())


def _find_adapter(path: str, ref: ModelRef, locate: Locate | None) -> Place:
    folder = Path(os.path.expanduser(path))
    if locate is not None and not os.path.exists(folder) and is_hub_id(path):
        return _ask(locate, path, ref.lora_revision, True, ref)
    return Place(folder)


def _ask(locate: Locate, name: str, revision: str | None, adapter: bool, ref: ModelRef) -> Place:
    """What `locate` finds; its refusals get the place of the recipe that names the model."""
    try:
        return locate(name, revision, adapter)
    except RecipeError as error:
        raise RecipeError([replace(problem, where=ref.where) for problem in error.problems]) from error


def _read_weights(folder: Path, remote: Remote) -> tuple[dict[str, StoredTensor], tuple[Path, ...]]:
    """Safetensors come first, and an index before a single file."""
    for index, single in ((INDEX, folder / SINGLE), (PICKLED_INDEX, folder / PICKLED)):
        if os.path.isfile(folder / index):
            return read_index(folder / index, remote)
        if is_there(single, remote):
            return read_weights(single, remote), (single,)
        if os.path.lexists(single):
            raise FormatError(f"{single}: is no regular file, or a link that leads nowhere; is the download complete?")
    for pattern, advice in _OTHER_WEIGHTS.items():
        if any(folder.glob(pattern)):
            raise FormatError(f"{folder}: no {SINGLE} here; {advice}")
    raise FormatError(f"{folder}: no {SINGLE} and no {INDEX} here; is the download complete?")


def _refuse_path(ref: ModelRef, folder: Path) -> NoReturn:
    if os.path.exists(folder):
        advice = "name the folder that holds it; pymerge merge-files merges single files"
        problem = Problem(f'model "{ref.path}" is a file', ref.where, advice)
    elif is_gguf(folder):
        problem = Problem(f'model "{ref.path}": there is no such file', ref.where, f"looked for {folder.absolute()}")
    elif _HUB_ID.fullmatch(ref.path):
        revision = f" --revision {ref.revision}" if ref.revision else ""
        problem = Problem(
            f'model "{ref.path}" is not a folder here, and this does not download',
            ref.where,
            f"run: hf download {ref.path}{revision} --local-dir {ref.path}",
        )
    else:
        problem = Problem(f'model "{ref.path}": there is no such folder', ref.where, f"looked for {folder.absolute()}")
    raise RecipeError([problem])
