"""Small files that appear whole or not at all: temporary name, sync, rename."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pymerge.errors import ResourceError

__all__ = ["copy_file", "digest_json", "remove_file", "sync_folder", "write_bytes", "write_json", "write_text"]

_CHUNK = 1 << 20


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, durably and atomically; halves of characters, which JSON may hold, as in JSON.

    Raises:
        ResourceError: the disk is full or the folder refuses.
    """
    write_bytes(path, _encode(text))


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content`, durably and atomically; raises as `write_text`."""
    _write(path, lambda file: file.write(content))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` the way the field writes its configs: two spaces, UTF-8, one newline at the end."""
    write_bytes(path, _encode_json(value))


def digest_json(value: Mapping[str, Any]) -> str:
    """SHA-256 of the file that `write_json` makes."""
    return hashlib.sha256(_encode_json(value)).hexdigest()


def _encode_json(value: Mapping[str, Any]) -> bytes:
    return _encode(json.dumps(value, indent=2, ensure_ascii=False, default=dict) + "\n")


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def copy_file(source: Path, path: Path) -> None:
    """Copy a file's bytes (not its mode: the user's umask decides), durably and atomically."""

    def copy(file: BinaryIO) -> None:
        with source.open("rb") as original:
            while chunk := original.read(_CHUNK):
                file.write(chunk)

    _write(path, copy)


def remove_file(path: Path) -> None:
    """Remove what may be there; raises as `write_text`."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ResourceError(f"{path}: cannot be removed: {error.strerror or error}") from error


def sync_folder(folder: Path) -> None:
    """Make renames and removals in `folder` durable, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _write(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    # Not tempfile: it makes files that nobody but their owner may read.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        try:
            with temporary.open("xb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written: {error.strerror or error}") from error
