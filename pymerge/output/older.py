"""What an older merge left in an output folder: files that it wrote go, the user's stay and are named."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pymerge.checkpoint.index import INDEX
from pymerge.checkpoint.json_files import read_json
from pymerge.checkpoint.tokenizer_files import COMPANIONS, TEMPLATE_FOLDER, find_tokenizer_files
from pymerge.errors import FormatError
from pymerge.output.card import CARD
from pymerge.output.files import remove_file
from pymerge.output.fingerprint import digest_file
from pymerge.output.manifest import MANIFEST
from pymerge.plan.values import RECIPES

__all__ = ["remove_older"]

#: An adapter's, in words: merges of models do without what reads adapters.
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
#: Besides tokenizers, templates and shards. Whatever a manifest says, nothing else is removed.
_NAMES = (*COMPANIONS, CARD, *RECIPES, "config.json", INDEX, *_ADAPTER)


@dataclass(frozen=True, slots=True)
class _Older:
    """What an older merge wrote, by its manifest.

    Attributes:
        files: SHA-256 of small files by name; None in folders of versions that wrote none.
        sizes: bytes of weight files.
    """

    files: Mapping[str, str | None] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> _Older:
        """Nothing, if there is no manifest that can be understood."""
        try:
            values = read_json(folder / MANIFEST)
            files: dict[str, str | None] = {str(name): None for name in values["extras"]}
            files |= {str(name): str(digest) for name, digest in values.get("files", {}).items()}
            return cls(files, {str(output["name"]): int(output["size"]) for output in values["outputs"]})
        except (FormatError, KeyError, TypeError, ValueError, AttributeError):
            return cls()

    def wrote(self, path: Path, name: str) -> bool:
        """Whether a file is still what the older merge wrote."""
        if name in self.sizes:
            return path.stat().st_size == self.sizes[name]
        return name in self.files and self.files[name] in (None, digest_file(path))


def remove_older(folder: Path, written: Collection[str]) -> tuple[str, ...]:
    """Remove what an older merge wrote and this one did not, while that one's manifest is still there.

    Args:
        written: names of the files of this one.

    Returns:
        A warning, if files stay whose names say that they are of this model.

    Raises:
        ResourceError: the folder refuses.
    """
    older = _Older.read(folder)
    foreign = []
    for name in _list_present(folder):
        if name in written:
            continue
        if older.wrote(folder / name, name):
            remove_file(folder / name)
        else:
            foreign.append(name)
    with suppress(OSError):
        # If that was all it held.
        (folder / TEMPLATE_FOLDER).rmdir()
    if not foreign:
        return ()
    return (
        f"{folder}: {', '.join(foreign)} stood there before and came from no merge that is known; "
        "remove what does not belong to the new model",
    )


def _list_present(folder: Path) -> Iterator[str]:
    yield from (name for name in _NAMES if (folder / name).is_file())
    yield from find_tokenizer_files(folder)
    yield from sorted(path.name for path in folder.glob("model*.safetensors") if path.is_file())
