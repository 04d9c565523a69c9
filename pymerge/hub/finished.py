"""The files of a finished merge, which are sent to a hub; whatever else its folder holds is not."""

from __future__ import annotations

import os
from pathlib import Path

from pymerge.checkpoint.json_files import read_json
from pymerge.errors import FormatError, RecipeError
from pymerge.execute.journal import JOURNAL
from pymerge.output.folder import CONFIG, INDEX
from pymerge.output.manifest import MANIFEST
from pymerge.plan.values import RECIPES

__all__ = ["list_finished"]

_CARD = "README.md"


def list_finished(folder: Path) -> tuple[list[str], list[str]]:
    """The names of a merge's weight files, and of what is beside them.

    Raises:
        RecipeError: the folder holds no finished merge.
        FormatError: what it holds is not what was written.
    """
    if not folder.is_dir():
        raise RecipeError(f"{folder}: there is no such folder; name the one that a merge made")
    if (folder / JOURNAL).exists():
        raise RecipeError(f"{folder}: holds an unfinished merge; run its command again first")
    for name in (MANIFEST, CONFIG):
        if not (folder / name).is_file():
            raise RecipeError(f"{folder}: holds no finished merge (it has no {name}); name a folder that pymerge made")
    manifest = read_json(folder / MANIFEST)
    try:
        weights = {str(each["name"]): int(each["size"]) for each in manifest["outputs"]}
        extras = [str(name) for name in manifest["extras"]]
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"{folder / MANIFEST}: is not as pymerge writes it ({type(error).__name__}: {error})"
        ) from None
    for name, size in weights.items():
        if Path(name).name != name or not (folder / name).is_file() or (folder / name).stat().st_size != size:
            raise FormatError(f"{folder / name}: is not the file that was written; pymerge verify {folder} says more")
    beside = [MANIFEST, CONFIG, *([INDEX] if len(weights) > 1 else []), *RECIPES, _CARD, *extras]
    home = os.path.realpath(folder)
    for name in beside:
        # A manifest may come from a stranger: it must not name files of other folders.
        if os.path.commonpath((home, os.path.realpath(folder / name))) != home:
            raise FormatError(f"{folder / MANIFEST}: names a file of another folder: {name}")
    return list(weights), [name for name in dict.fromkeys(beside) if (folder / name).is_file()]
