"""Where an output goes: whether it can be there, found out without writing anything."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pymerge.errors import RecipeError, ResourceError

__all__ = ["find_existing", "find_target", "peek", "refuse_folders", "refuse_place"]

#: What a file system answers that has no files without names, which says nothing about others,
_NO_NAMELESS = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS)
#: but for the system's own, which have no files of users at all.
_SYSTEM = ("/proc", "/sys")


def find_target(out: str | os.PathLike[str]) -> Path:
    """The path of an output.

    Raises:
        RecipeError: it is empty, or the root of the file system.
    """
    text = os.fspath(out)
    if not text:
        raise RecipeError("the output has no name; name the folder or file to make")
    # os.path, unlike pathlib, answers for every path: too long, unknown ~user, links in a circle.
    path = os.path.expanduser(text)
    if os.path.realpath(path) == os.path.sep:
        raise RecipeError(f"output {text} is the root of the file system; name a folder in it")
    return Path(path)


def find_existing(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    folder = folder.absolute()
    return next(parent for parent in (folder, *folder.parents) if os.path.exists(parent))


def refuse_folders(folder: Path, names: Iterable[str]) -> None:
    """Refuse an output folder that has folders where files will be.

    Raises:
        RecipeError: as said.
    """
    for path in (folder / name for name in names):
        if os.path.isdir(path) and not os.path.islink(path):
            raise RecipeError(
                f"{path} is a folder, and the merge writes a file of that name; "
                "remove it, or name another output folder"
            )


def refuse_place(folder: Path) -> None:
    """Refuse an output folder that could not be made, or not be written to.

    Raises:
        ResourceError: as said.
    """
    try:
        with suppress(FileNotFoundError):
            # Of this name there can be one; of a name that is too long there cannot.
            os.stat(folder)
        place = find_existing(folder)
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{place} is a file")
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"{place} cannot be written to")
        _try_nameless(place)
    except OSError as error:
        raise ResourceError(f"output folder {folder} cannot be made: {error.strerror or error}") from error


def _try_nameless(place: Path) -> None:
    """Open a file that has no name and is gone at once; raises OSError where there can be none."""
    try:
        os.close(os.open(place, os.O_TMPFILE | os.O_WRONLY, 0o600))
    except OSError as error:
        own = [os.stat(path).st_dev for path in _SYSTEM if os.path.isdir(path)]
        if error.errno not in _NO_NAMELESS or os.stat(place).st_dev in own:
            raise OSError(error.errno, f"{place} cannot be written to ({error.strerror})") from error


def peek(path: Path) -> tuple[Mapping[str, Any] | None, frozenset[str]]:
    """What the journal of an unfinished merge says, without taking it up: identity, and tensors that are written.

    Raises:
        ResourceError: it cannot be read, or nothing can have its name.
    """
    identity: Mapping[str, Any] | None = None
    recorded = set()
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        lines = []
    except OSError as error:
        raise ResourceError(f"{path}: the journal cannot be read: {error.strerror or error}") from error
    # A line that was cut short: behind it nothing counts.
    with suppress(ValueError, AttributeError, RecursionError):
        for entry in map(json.loads, lines):
            identity = entry.get("identity", identity)
            recorded.add(entry.get("tensor"))
    return identity, frozenset(name for name in recorded if isinstance(name, str))
