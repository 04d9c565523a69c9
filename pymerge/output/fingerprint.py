"""What tells one input from another."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pymerge.checkpoint.values import Checkpoint
from pymerge.checkpoint.weights import read_header
from pymerge.errors import FormatError

__all__ = ["digest_bytes", "digest_header", "fingerprint"]

_CHUNK = 4 << 20
#: Files that are read at once.
_READERS = 4


def fingerprint(model: Checkpoint, *, whole: bool = False) -> dict[str, Any]:
    """The sizes, times and digests of the headers of a model's files; with `whole` also SHA-256 of the
    files, as model hubs give it.

    Raises:
        FormatError: a file is damaged, or gone.
    """
    files = [
        {"name": path.name, "size": size, "mtime_ns": mtime, "header_blake2b": digest_header(path)}
        for path, size, mtime in model.files
    ]
    if whole:
        with ThreadPoolExecutor(_READERS) as readers:
            for file, digest in zip(files, readers.map(_digest_file, (path for path, *_ in model.files)), strict=True):
                file["sha256"] = digest
    return {"model": str(model.ref), "files": files}


def digest_header(path: Path) -> str:
    """BLAKE2b-128 of what a weight file says about its tensors: names, types, shapes and offsets, not data.

    Raises:
        FormatError: the file ends inside its header, or is gone.
    """
    return digest_bytes(read_header(path))


def digest_bytes(header: bytes) -> str:
    """BLAKE2b-128 of a header with its length before it."""
    return hashlib.blake2b(header, digest_size=16).hexdigest()


def _digest_file(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            buffer = bytearray(_CHUNK)
            while count := file.readinto(buffer):
                digest.update(memoryview(buffer)[:count])
    except OSError as error:
        raise FormatError(f"{path}: cannot be read any more: {error.strerror or error}") from error
    return digest.hexdigest()
