"""One weight file's header as stored tensors; the compiled reader checks it, byte for byte."""

from __future__ import annotations

from pathlib import Path

from pymerge.checkpoint.values import StoredTensor
from pymerge.dtypes import BY_CODE
from pymerge.errors import FormatError, ResourceError

__all__ = ["read_tensors"]


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
    tensors = {}
    for name, code, shape, begin, end in entries:
        dtype = BY_CODE.get(code)
        if dtype is None:
            raise FormatError(f'{path}: tensor "{name}" has the unknown type "{code}"; a newer pymerge may know it')
        tensors[name] = StoredTensor(name, dtype, tuple(shape), text, begin, end - begin)
    return tensors
