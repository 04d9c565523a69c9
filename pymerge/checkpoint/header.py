"""One weight file's header as stored tensors; the compiled reader checks it, byte for byte."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pymerge.checkpoint.remote import RemoteFile
from pymerge.checkpoint.values import StoredTensor
from pymerge.dtypes import BY_CODE
from pymerge.errors import FormatError, ResourceError

__all__ = ["parse_tensors", "read_tensors"]


def read_tensors(path: Path) -> dict[str, StoredTensor]:
    """Read the header of a safetensors file; no weight is read.

    Returns:
        Its tensors by name, in file order; offsets are absolute.

    Raises:
        FormatError: the file is damaged or holds an unknown type.
        ResourceError: it cannot be opened.
    """
    # Loaded at first use: recipes can be read and checked without the compiled core.
    from pymerge import _core

    text = str(path)
    try:
        entries, _metadata = _core.read_header(text)
    except OSError as error:
        raise ResourceError(f"{path}: cannot be read: {error.strerror or error}") from None
    except FormatError as error:
        instead = _find_text(path)
        raise FormatError(f"{path}: {instead}") if instead else error from None
    return _list_tensors(entries, text)


def _find_text(path: Path) -> str | None:
    """What stands in a damaged file instead of weights, where a download ended with something else."""
    try:
        with path.open("rb") as file:
            begin = file.read(200)
    except OSError:
        return None
    if begin.startswith(b"version https://git-lfs"):
        return "is a pointer to weights, not the weights; is the download complete? (git lfs pull)"
    # A header begins with its length, which for those of permitted size has a zero in its eighth byte.
    if begin[7:8] == b"\0" or not begin[:8].isascii():
        return None
    kind = {b"<": "a web page", b"{": "JSON", b"[": "JSON"}.get(begin.lstrip()[:1])
    return f"is {kind}, not weights; is it a safetensors file? Download it again" if kind else None


def parse_tensors(path: Path, file: RemoteFile) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file that will be at `path`, from its header; as `read_tensors`.

    Raises:
        FormatError: the header is damaged, does not fit the file's size, or holds an unknown type.
    """
    from pymerge import _core

    text = str(path)
    length = int.from_bytes(file.header[:8], "little")
    if len(file.header) != 8 + length or len(file.header) > file.size:
        raise FormatError(f"{path}: the header that the hub gave for it is cut short; is it a safetensors file?")
    entries, _metadata = _core.parse_header(file.header[8:], file.size - len(file.header), text)
    return _list_tensors(entries, text)


def _list_tensors(entries: Iterable[tuple[str, str, tuple[int, ...], int, int]], path: str) -> dict[str, StoredTensor]:
    tensors = {}
    for name, code, shape, begin, end in entries:
        dtype = BY_CODE.get(code)
        if dtype is None:
            raise FormatError(f'{path}: tensor "{name}" has the unknown type "{code}"; a newer pymerge may know it')
        tensors[name] = StoredTensor(name, dtype, tuple(shape), path, begin, end - begin)
    return tensors
