"""Weight files of a model hub that need not be here yet: what plans are made of, and by what they are known again.

A path is where the file is, or will be. Nothing here fetches anything: see pymerge/hub.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

__all__ = ["Locate", "Place", "Remote", "RemoteFile", "is_there"]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A weight file as the hub describes it.

    Attributes:
        repo: `owner/name`; `commit`: which version of it.
        size: bytes of the whole file.
        etag: the hub's name for its content; of large files the SHA-256.
        header: what a safetensors file begins with, up to its data; empty where the file was here already.
    """

    repo: str
    commit: str
    name: str
    size: int
    etag: str
    header: bytes = field(default=b"", repr=False)


Remote: TypeAlias = Mapping[Path, RemoteFile]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model or an adapter is.

    Attributes:
        folder: its small files are there.
        remote: its weight files that come from a hub, whether they are here or not.
        notes: what the user should know about how it was found.
    """

    folder: Path
    remote: Remote = field(default_factory=dict)
    notes: tuple[str, ...] = ()


#: Finds a hub's model (or adapter) by its name and revision.
Locate: TypeAlias = Callable[[str, "str | None", bool], Place]


def is_there(path: Path, remote: Remote) -> bool:
    """Whether a folder has, or will have, a file."""
    # os.path, unlike pathlib, answers no for names that cannot exist (too long).
    return path in remote or os.path.isfile(path)
