"""The manifest of an output folder, read back; nothing in it is trusted to be of the right kind."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymerge.checkpoint.adapters import WEIGHTS
from pymerge.checkpoint.json_files import read_json
from pymerge.errors import FormatError
from pymerge.output.fingerprint import digest_file
from pymerge.output.manifest import FORMAT, MANIFEST
from pymerge.verify.values import Check, Finding

__all__ = ["InputFile", "Manifest", "parse_files", "read_manifest"]

#: What has to be there -> of which kind.
_KINDS: dict[str, type] = {
    "pymerge": str, "method": str, "seed": int, "settings": dict, "inputs": list, "outputs": list, "extras": list,
    "report": dict,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class InputFile:
    """What a weight file of an input was when it was merged.

    Attributes:
        modified: when, in nanoseconds; 0 if it came from a hub.
        header: digest of its header.
        whole: of all its bytes, if --hash-inputs was given.
    """

    size: int
    modified: int
    header: str
    whole: str | None = None

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> InputFile:
        """One of a fingerprint's files."""
        size, modified = int(values["size"]), int(values.get("mtime_ns", 0))
        return cls(size, modified, str(values["header_blake2b"]), values.get("sha256"))


@dataclass(frozen=True, slots=True)
class Manifest:
    """What checks need of a manifest.

    Attributes:
        sizes: bytes of each weight file, by name.
        headers: digests of their headers.
        digests: of each tensor, None where its bytes were shared with an input and never read; None as a whole
            in folders of versions that wrote none.
        inputs: the files of each model by their names, by the name of the model in the recipe.
        nonfinite: how many values of which tensors were stored though they are not finite.
        files: SHA-256 of what else was written, by name; of folders of older versions, none.
    """

    version: str
    method: str
    seed: int
    lenient: bool
    allow_crimes: bool
    allow_nonfinite: bool
    sizes: Mapping[str, int]
    headers: Mapping[str, str]
    extras: tuple[str, ...]
    inputs: Mapping[str, Mapping[str, InputFile]]
    nonfinite: Mapping[str, int] = field(default_factory=dict)
    digests: Mapping[str, str | None] | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_adapter(self) -> bool:
        """Whether the output is an adapter, not a model."""
        return set(self.sizes) == {WEIGHTS[0]}

    def find_change(self, folder: Path, name: str) -> tuple[Finding, ...]:
        """What is wrong with a small file that is there; nothing if it is not, or its digest is not known."""
        path = folder / name
        if name not in self.files or not os.path.isfile(path):
            return ()
        try:
            return () if digest_file(path) == self.files[name] else (Finding("is not what the merge wrote", name),)
        except FormatError as error:
            return (Finding(str(error), name),)


def read_manifest(folder: Path) -> tuple[Manifest | None, Check]:
    """The manifest, and the check of it; None where there is none that can be understood."""
    path = folder / MANIFEST
    if not path.exists():
        return None, Check.skip("manifest", f"there is no {MANIFEST}: what the folder should hold is not known")
    try:
        values = read_json(path)
        if values.get("format") != FORMAT:
            why = f"{MANIFEST} is of format {values.get('format')!r}, and this pymerge knows {FORMAT}"
            return None, Check.skip("manifest", f"{why}; use the version that made it")
        manifest = _parse(values)
    except FormatError as error:
        return None, Check("manifest", "damaged", (Finding(str(error)),))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        wrong = Finding(f"is not as pymerge writes it ({type(error).__name__}: {error})", MANIFEST)
        return None, Check("manifest", "damaged", (wrong,))
    return manifest, Check("manifest", f"pymerge {manifest.version}, {manifest.method}")


def _parse(values: Mapping[str, Any]) -> Manifest:
    for name, kind in _KINDS.items():
        if not isinstance(values[name], kind):
            raise TypeError(f"{name} is {values[name]!r}")
    settings, digests = values["settings"], values.get("digests")
    return Manifest(
        version=values["pymerge"],
        method=values["method"],
        seed=values["seed"],
        lenient=bool(settings.get("lenient")),
        allow_crimes=bool(settings.get("allow_crimes")),
        allow_nonfinite=bool(settings.get("allow_nonfinite")),
        sizes={_plain(output["name"]): int(output["size"]) for output in values["outputs"]},
        headers={output["name"]: str(output["header_blake2b"]) for output in values["outputs"]},
        extras=tuple(map(str, values["extras"])),
        inputs={str(model["model"]): parse_files(model["files"]) for model in values["inputs"]},
        nonfinite={str(name): int(count) for name, count in values["report"].get("nonfinite", {}).items()},
        files={_inside(name): str(digest) for name, digest in values.get("files", {}).items()},
        digests=None if digests is None else {str(name): digest for name, digest in digests.items()},
    )


def parse_files(files: Iterable[Mapping[str, Any]]) -> dict[str, InputFile]:
    """The files of a fingerprint, by their names."""
    return {str(file["name"]): InputFile.parse(file) for file in files}


def _inside(name: str) -> str:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{name!r} is no name of a file in this folder")
    return name


def _plain(name: str) -> str:
    if Path(name).name != name:
        raise ValueError(f"{name!r} is no name of a file in the same folder")
    return name
