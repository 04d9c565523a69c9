"""One weight file, whatever its format: the end of its name says which."""

from __future__ import annotations

import os
from pathlib import Path

from pymerge.checkpoint.header import parse_tensors, read_tensors
from pymerge.checkpoint.kinds import is_gguf, is_pickled
from pymerge.checkpoint.remote import Remote
from pymerge.checkpoint.values import Checkpoint, StoredTensor
from pymerge.config.values import ModelRef
from pymerge.errors import FormatError

__all__ = ["describe_file", "open_file", "read_header", "read_weights"]


#: What there is of folders that no hub knows of.
_NOTHING: Remote = {}


def read_weights(path: Path, remote: Remote = _NOTHING) -> dict[str, StoredTensor]:
    """Tensors of a weight file by name, in file order; no weight is read.

    Args:
        remote: files that need not be here; their headers are known.

    Raises:
        FormatError, DTypeError: it is damaged, or holds what cannot be merged.
        ResourceError: it cannot be opened.
    """
    if is_gguf(path):
        raise FormatError(f"{path}: a GGUF file is a whole model: pymerge merge takes it, as model: {path.name}")
    if path in remote and not path.exists():
        return parse_tensors(path, remote[path])
    if not is_pickled(path):
        return read_tensors(path)
    from pymerge.checkpoint.pickled import read_pickled

    return read_pickled(path)


def open_file(ref: ModelRef) -> Checkpoint:
    """One weight file as if it were a model: without config.json; raises as `read_weights`."""
    path = Path(os.path.expanduser(ref.path)).absolute()
    return Checkpoint(ref, path.parent, read_weights(path), {}, (describe_file(path),))


def describe_file(path: Path, remote: Remote = _NOTHING) -> tuple[Path, int, int]:
    """A weight file with its size in bytes and mtime_ns, by which it is known again; of one that is not here 0.

    Raises:
        FormatError: it is gone.
    """
    if path in remote and not path.exists():
        return path, remote[path].size, 0
    try:
        status = path.stat()
    except OSError as error:
        raise FormatError(f"{path}: cannot be read any more: {error.strerror or error}") from None
    return path, status.st_size, status.st_mtime_ns


def read_header(path: Path) -> bytes:
    """All bytes of a file that say which tensors it has and where.

    Raises:
        FormatError: the file ends inside of them, or is gone; of a pickled file also as `read_weights`.
    """
    try:
        with path.open("rb") as file:
            if is_pickled(path):
                from pymerge.checkpoint.pickled import list_looked_at

                parts = []
                for begin, end in list_looked_at(path):
                    file.seek(begin)
                    parts.append((end - begin).to_bytes(8, "little") + file.read(end - begin))
                return b"".join(parts)
            if is_gguf(path):
                from pymerge.checkpoint.gguf_header import read_gguf_header

                return file.read(read_gguf_header(path).size)
            prefix = file.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or length > path.stat().st_size - 8:
                raise FormatError(f"{path}: ends inside its header; it changed since the merge was planned")
            return prefix + file.read(length)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read any more: {error.strerror or error}") from error
