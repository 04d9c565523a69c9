"""What tells one input from another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pymerge.checkpoint.remote import RemoteFile
from pymerge.checkpoint.values import Checkpoint
from pymerge.checkpoint.weights import read_header
from pymerge.errors import FormatError

__all__ = ["digest_bytes", "digest_file", "digest_header", "fingerprint"]

_CHUNK = 4 << 20
#: Digits of a SHA-256.
_SHA256 = 64
#: Files that are read at once.
_READERS = 4


def fingerprint(model: Checkpoint, *, whole: bool = False) -> dict[str, Any]:
    """The sizes, times and digests of the headers of a model's files; with `whole` also SHA-256 of the
    files, as model hubs give it.

    A hub's file has its etag in the place of a time: it is the same before it was fetched, after, and in another cache.

    Raises:
        FormatError: a file is damaged, or gone.
    """
    files = [_describe(path, size, mtime, model.remote.get(path)) for path, size, mtime in model.files]
    if whole:
        # Brings logging along, which other merges do without.
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(_READERS) as readers:
            digests = readers.map(_digest_whole, (path for path, *_ in model.files), files)
            for file, digest in zip(files, digests, strict=True):
                file |= {"sha256": digest} if digest else {}
    commits = {file.repo: file.commit for file in model.remote.values()}
    return {"model": str(model.ref), **({"commits": commits} if commits else {}), "files": files}


def _describe(path: Path, size: int, mtime: int, remote: RemoteFile | None) -> dict[str, Any]:
    known = {"mtime_ns": mtime} if remote is None else {"etag": remote.etag}
    header = remote.header if remote and not path.exists() else b""
    return {
        "name": path.name,
        "size": size,
        **known,
        "header_blake2b": digest_bytes(header) if header else digest_header(path),
    }


def digest_header(path: Path) -> str:
    """BLAKE2b-128 of what a weight file says about its tensors: names, types, shapes and offsets, not data.

    Raises:
        FormatError: the file ends inside its header, or is gone.
    """
    return digest_bytes(read_header(path))


def digest_bytes(header: bytes) -> str:
    """BLAKE2b-128 of a header with its length before it."""
    return hashlib.blake2b(header, digest_size=16).hexdigest()


def _digest_whole(path: Path, file: Mapping[str, Any]) -> str | None:
    """SHA-256 of a file: the hub's, if it is one of the hub's large files; None of one that is not here."""
    etag = file.get("etag", "")
    if len(etag) == _SHA256:
        return str(etag)
    return digest_file(path) if path.exists() or not etag else None


def digest_file(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        FormatError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            buffer = bytearray(_CHUNK)
            while count := file.readinto(buffer):
                digest.update(memoryview(buffer)[:count])
    except OSError as error:
        raise FormatError(f"{path}: cannot be read any more: {error.strerror or error}") from error
    return digest.hexdigest()
