"""The weight files of a folder against its index and its manifest: all there, nothing else, nothing twice."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymerge.checkpoint import StoredTensor, adapters
from pymerge.checkpoint.header import read_tensors
from pymerge.checkpoint.index import INDEX
from pymerge.checkpoint.json_files import read_json
from pymerge.errors import FormatError, ResourceError
from pymerge.execute.journal import JOURNAL
from pymerge.output.card import CARD
from pymerge.output.fingerprint import digest_header
from pymerge.output.folder import CONFIG
from pymerge.output.single_file import journal_name
from pymerge.plan.values import RECIPES
from pymerge.verify.manifest import Manifest
from pymerge.verify.values import Check, Finding, join_names

__all__ = ["Shards", "read_shards"]

#: Files that other checks look at.
_ELSEWHERE = (CONFIG, INDEX, adapters.CONFIG)


@dataclass(slots=True)
class Shards:
    """What could be read of a folder's weight files.

    Attributes:
        files: by name, the tensors of each file whose header is in order.
        wrong: what is not.
    """

    files: dict[str, dict[str, StoredTensor]] = field(default_factory=dict)
    wrong: list[Finding] = field(default_factory=list)

    @property
    def tensors(self) -> dict[str, StoredTensor]:
        """All tensors by name; of two of one name, which is a finding, the first."""
        found: dict[str, StoredTensor] = {}
        for tensors in self.files.values():
            found = {**tensors, **found}
        return found


def read_shards(
    folder: Path, manifest: Manifest | None, single: str = "model.safetensors"
) -> tuple[dict[str, StoredTensor], tuple[Check, Check]]:
    """Read all headers, and hold files and index to each other.

    Args:
        single: the name of the weight file where there is one.

    Returns:
        The tensors that there are, and the checks "files" and "index".
    """
    weight_map, index_check = _read_index(folder)
    named = {file for file in (weight_map or {}).values() if _is_plain(file)}
    expected = manifest.sizes if manifest else named or {single}
    present = sorted(path.name for path in folder.glob("*.safetensors"))
    shards = Shards()
    for name in sorted({*expected, *present}):
        if name in expected:
            _read_file(folder / name, manifest, shards)
        else:
            shards.wrong.append(Finding("is a weight file that belongs to nothing here", name))
    for journal in (JOURNAL, journal_name(single)):
        if (folder / journal).exists():
            why = "the merge in this folder is not finished; run it again to go on with it"
            shards.wrong.append(Finding(why, journal))
    shards.wrong += [
        Finding("is a weight file that is not finished", path.name) for path in folder.glob(".*.safetensors.partial")
    ]
    shards.wrong += _check_small(folder, manifest) if manifest else ()
    _find_doubles(shards)
    tensors = shards.tensors
    size = sum(tensor.nbytes for tensor in tensors.values())
    summary = f"{len(shards.files)} weight files, {len(tensors):,} tensors"
    if manifest and manifest.find_change(folder, CARD):
        # It is there to be edited, and no part of the model.
        summary += f"; {CARD} was changed"
    files = Check("files", summary, tuple(shards.wrong))
    if weight_map is not None:
        changed = manifest.find_change(folder, INDEX) if manifest else ()
        wrong = (*_check_index(folder, weight_map, shards.files, size), *changed)
        index_check = Check("index", f"{len(weight_map):,} tensors", wrong)
    elif index_check is None:
        wrong = (Finding(f"there are {len(shards.files)} weight files and no index", INDEX),)
        index_check = Check("index", "none, as there is one file", wrong if len(expected) > 1 else ())
    return tensors, (files, index_check)


def _check_small(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    """What is wrong with the files that make a model usable, and its recipe."""
    for name in dict.fromkeys((*manifest.extras, *manifest.files)):
        # Without its recipe a folder is what it was, but nothing can be made again: the inputs' check says so.
        if name not in (*_ELSEWHERE, CARD, *RECIPES) and not os.path.isfile(folder / name):
            yield Finding("is missing, though the manifest lists it", name)
        elif name not in (*_ELSEWHERE, CARD):
            yield from manifest.find_change(folder, name)


def _read_index(folder: Path) -> tuple[dict[str, Any] | None, Check | None]:
    """The weight map; else None, with a check if there is an index and it is damaged."""
    if not (folder / INDEX).exists():
        return None, None
    try:
        weight_map = read_json(folder / INDEX).get("weight_map")
    except FormatError as error:
        return None, Check("index", "damaged", (Finding(str(error)),))
    if not isinstance(weight_map, dict):
        return None, Check("index", "damaged", (Finding("has no weight_map", INDEX),))
    return weight_map, None


def _is_plain(file: object) -> bool:
    return isinstance(file, str) and file not in ("", "..") and "\0" not in file and Path(file).name == file


def _read_file(path: Path, manifest: Manifest | None, shards: Shards) -> None:
    try:
        found = path.stat().st_size
        if manifest and found != (size := manifest.sizes[path.name]):
            shards.wrong.append(Finding(f"has {found:,} bytes, the manifest says {size:,}", path.name))
        shards.files[path.name] = read_tensors(path)
        if manifest and digest_header(path) != manifest.headers[path.name]:
            shards.wrong.append(Finding("its header is not the one that the merge wrote", path.name))
    except (OSError, ValueError):  # the latter of a name that no file can have
        shards.wrong.append(Finding("is missing", path.name))
    except (FormatError, ResourceError) as error:
        shards.wrong.append(Finding(str(error)))


def _find_doubles(shards: Shards) -> None:
    owner: dict[str, str] = {}
    for file, tensors in shards.files.items():
        for name in tensors:
            first = owner.setdefault(name, file)
            if first != file:
                shards.wrong.append(Finding(f"is in {first} as well", file, name))


def _check_index(
    folder: Path, weight_map: Mapping[str, Any], files: Mapping[str, Mapping[str, StoredTensor]], size: int
) -> Iterator[Finding]:
    for name, file in weight_map.items():
        if not _is_plain(file):
            yield Finding(f"the index says it is in {file!r}, which is no file of this folder", INDEX, name)
        elif file in files and name not in files[file]:
            yield Finding(f"is not in {file}, where the index says", INDEX, name)
        elif file not in files and not os.path.isfile(folder / file):
            yield Finding(f"the index says it is in {file}, which is missing", INDEX, name)
    for file, tensors in files.items():
        strays = [name for name in tensors if name not in weight_map]
        if strays:
            yield Finding(f"lacks {len(strays):,} tensors of {file}: {join_names(strays)}", INDEX)
    metadata = read_json(folder / INDEX).get("metadata")
    said = metadata.get("total_size") if isinstance(metadata, dict) else None
    if said != size:
        yield Finding(f"says total_size = {said}, the tensors have {size} bytes", INDEX)
