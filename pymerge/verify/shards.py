"""The weight files of a folder against its index and its manifest: all there, nothing else, nothing twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymerge.checkpoint import StoredTensor
from pymerge.checkpoint.header import read_tensors
from pymerge.checkpoint.index import INDEX
from pymerge.checkpoint.json_files import read_json
from pymerge.errors import FormatError, ResourceError
from pymerge.execute.journal import JOURNAL
from pymerge.output.fingerprint import digest_header
from pymerge.verify.manifest import Manifest
from pymerge.verify.values import Check, Finding, join_names

__all__ = ["Shards", "read_shards"]

_SINGLE = "model.safetensors"


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


def read_shards(folder: Path, manifest: Manifest | None) -> tuple[dict[str, StoredTensor], tuple[Check, Check]]:
    """Read all headers, and hold files and index to each other.

    Returns:
        The tensors that there are, and the checks "files" and "index".
    """
    weight_map, index_check = _read_index(folder)
    named = {file for file in (weight_map or {}).values() if _is_plain(file)}
    expected = manifest.sizes if manifest else named or {_SINGLE}
    present = sorted(path.name for path in folder.glob("*.safetensors"))
    shards = Shards()
    for name in sorted({*expected, *present}):
        if name in expected:
            _read_file(folder / name, manifest, shards)
        else:
            shards.wrong.append(Finding("is a weight file that belongs to nothing here", name))
    if (folder / JOURNAL).exists():
        shards.wrong.append(Finding("the merge in this folder is not finished; run it again to go on with it", JOURNAL))
    shards.wrong += [
        Finding("is a weight file that is not finished", path.name) for path in folder.glob(".*.safetensors.partial")
    ]
    shards.wrong += [
        Finding("is missing, though the manifest lists it", name)
        for name in (manifest.extras if manifest else ())
        if not (folder / name).is_file()
    ]
    _find_doubles(shards)
    tensors = shards.tensors
    size = sum(tensor.nbytes for tensor in tensors.values())
    files = Check("files", f"{len(shards.files)} weight files, {len(tensors):,} tensors", tuple(shards.wrong))
    if weight_map is not None:
        summary = f"{len(weight_map):,} tensors"
        index_check = Check("index", summary, tuple(_check_index(folder, weight_map, shards.files, size)))
    elif index_check is None:
        wrong = (Finding(f"there are {len(shards.files)} weight files and no index", INDEX),)
        index_check = Check("index", "none, as there is one file", wrong if len(expected) > 1 else ())
    return tensors, (files, index_check)


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
        elif file not in files and not (folder / file).is_file():
            yield Finding(f"the index says it is in {file}, which is missing", INDEX, name)
    for file, tensors in files.items():
        strays = [name for name in tensors if name not in weight_map]
        if strays:
            yield Finding(f"lacks {len(strays):,} tensors of {file}: {join_names(strays)}", INDEX)
    metadata = read_json(folder / INDEX).get("metadata")
    said = metadata.get("total_size") if isinstance(metadata, dict) else None
    if said != size:
        yield Finding(f"says total_size = {said}, the tensors have {size} bytes", INDEX)
