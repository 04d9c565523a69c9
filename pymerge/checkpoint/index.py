"""The index of a sharded checkpoint: which tensor is in which file; every name is checked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pymerge.checkpoint.json_files import read_json
from pymerge.checkpoint.remote import Remote, is_there
from pymerge.checkpoint.values import StoredTensor
from pymerge.checkpoint.weights import read_weights
from pymerge.errors import FormatError

__all__ = ["INDEX", "PICKLED_INDEX", "read_index"]

INDEX = "model.safetensors.index.json"
PICKLED_INDEX = "pytorch_model.bin.index.json"


def read_index(path: Path, remote: Remote) -> tuple[dict[str, StoredTensor], tuple[Path, ...]]:
    """Read an index and the headers of all shards it names.

    Args:
        remote: shards that need not be here.

    Returns:
        The tensors by name, and the shard files in the order the index first names them.

    Raises:
        FormatError: index and shards do not fit together.
    """
    weight_map = read_json(path, unique=True).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FormatError(f"{path}: has no weight_map; download the file again")
    shards: dict[str, dict[str, StoredTensor]] = {}
    for name, file in weight_map.items():
        if not isinstance(file, str) or file not in shards:
            shards[file] = _read_shard(path, name, file, remote)
    tensors = {}
    for name, file in weight_map.items():
        stored = shards[file].get(name)
        if stored is None:
            raise FormatError(f'{path}: tensor "{name}" is not in {file}, where the index says; download both again')
        tensors[name] = stored
    for file, found in shards.items():
        _check_strays(path, file, [name for name in found if name not in tensors])
    return tensors, tuple(path.parent / file for file in shards)


def _read_shard(index: Path, tensor: str, file: Any, remote: Remote) -> dict[str, StoredTensor]:
    """Read one shard after checking that its name cannot lead out of the folder."""
    if not isinstance(file, str) or not file.strip(".") or not file.isprintable() or any(c in file for c in "/\\:"):
        raise FormatError(f'{index}: tensor "{tensor}": {repr(file)[:100]} is not a plain file name in the same folder')
    shard = index.parent / file
    if not is_there(shard, remote):
        what = "is no regular file" if os.path.lexists(shard) and not shard.is_symlink() else "is missing"
        raise FormatError(f"{index}: the shard {file} {what}; finish the download of {index.parent}")
    return read_weights(shard, remote)


def _check_strays(index: Path, file: str, strays: list[str]) -> None:
    """Refuse tensors that the index leaves out: loaders would drop them without a word.

    A tensor that is in two shards is not stray: the index says which copy counts.
    """
    if strays:
        shown = ", ".join(f'"{name}"' for name in strays[:3]) + (", ..." if len(strays) > 3 else "")
        raise FormatError(
            f"{index}: {len(strays)} tensors of {file} are not in the index ({shown}); "
            "shard and index are of different versions: download both again"
        )
