"""Weights that torch.save wrote (`.bin`, `.pt`, `.pth`), as byte ranges of their file, without torch; nothing is run.

Two formats: since torch 1.6 a zip archive of a pickle and one entry for each storage; before, pickles and then the
storages' bytes in one file. Both hold the bytes of tensors as they are in memory, so they are read as safetensors are.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pymerge.checkpoint.standins import Storage, Tensor
from pymerge.checkpoint.unpickling import Unpickled, unpickle
from pymerge.checkpoint.values import StoredTensor
from pymerge.checkpoint.zip_directory import read_archive
from pymerge.errors import DTypeError, FormatError, ResourceError

__all__ = ["list_looked_at", "read_pickled"]

#: Keys under which trainers keep a state dict among other things.
WRAPPERS = ("state_dict", "model_state_dict", "model", "module")

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_ZIP = b"PK\x03\x04"
_AGAIN = "load it with torch and save the state dict again"


@dataclass(frozen=True, slots=True)
class _Contents:
    """What a file holds.

    Attributes:
        places: of each storage that is used, by its key: where its bytes begin and end.
        looked_at: the ranges that say all this.
    """

    pickle: Unpickled
    places: Mapping[str, tuple[int, int]]
    looked_at: tuple[tuple[int, int], ...]


def read_pickled(path: Path) -> dict[str, StoredTensor]:
    """Read what a pickled file of weights says about its tensors; no weight is read.

    Returns:
        Its tensors by name, in the order of the state dict; offsets are absolute. Names of tied weights
        have one range.

    Raises:
        FormatError: the file is damaged, is no file of weights, or holds tensors that are not contiguous.
        DTypeError: it holds tensors of a kind or type that no safetensors file can.
        ResourceError: it cannot be opened.
    """
    with _open(path) as (file, size):
        contents = _read_contents(file, size, path)
    state = _find_state(contents.pickle, path)
    text = str(path)
    return {name: _locate(name, tensor, contents.places[tensor.storage.key][0], text) for name, tensor in state.items()}


def list_looked_at(path: Path) -> tuple[tuple[int, int], ...]:
    """The byte ranges of a file that decide what `read_pickled` says about it; raises as that does."""
    with _open(path) as (file, size):
        return _read_contents(file, size, path).looked_at


@contextmanager
def _open(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    try:
        # Opening a pipe waits for its writer, unless told not to.
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise FormatError(f"{path}: is no regular file")
            yield file, status.st_size
    except OSError as error:
        raise ResourceError(f"{path}: cannot be read: {error.strerror or error}") from None


def _read_contents(file: BinaryIO, size: int, path: Path) -> _Contents:
    first = file.read(4)
    file.seek(0)
    if first == _ZIP:
        return _read_zip(file, size, path)
    if first[:1] == b"\x80":
        return _read_legacy(file, size, path)
    raise FormatError(f"{path}: is no file that torch.save wrote; is the download complete? (git lfs pull)")


def _read_zip(file: BinaryIO, size: int, path: Path) -> _Contents:
    archive = read_archive(file, size, path)
    root = next(
        (name[: -len("data.pkl")] for name in archive.entries if name.count("/") == 1 and name.endswith("/data.pkl")),
        "",
    )
    if not root or root + "constants.pkl" in archive.entries:
        kind = "a TorchScript program" if root else "an archive without weights"
        raise FormatError(f"{path}: is {kind}; save the state dict of the model (torch.save(model.state_dict(), ...))")
    looked_at = [(archive.begin, archive.end)]
    if root + "byteorder" in archive.entries:
        begin, end = archive.locate(file, root + "byteorder")
        looked_at.append((begin, end))
        file.seek(begin)
        if (order := file.read(min(end - begin, 16))) != b"little":
            raise FormatError(
                f"{path}: its byte order is {order.decode(errors='replace')}; only little is read; {_AGAIN}"
            )
    begin, end = archive.locate(file, root + "data.pkl")
    looked_at.append((begin, end))
    file.seek(begin)
    pickle = unpickle(file, end - begin, path)
    places = {}
    for storage in _list_storages(pickle, path):
        name = f"{root}data/{storage.key}"
        if name not in archive.entries:
            raise FormatError(f'{path}: storage "{storage.key}" is not in the archive; is the download complete?')
        begin, end = places[storage.key] = archive.locate(file, name)
        looked_at.append((archive.entries[name].header, begin))
        _check_size(storage, begin, end, path)
    return _Contents(pickle, places, tuple(looked_at))


def _read_legacy(file: BinaryIO, size: int, path: Path) -> _Contents:
    def read() -> Unpickled:
        return unpickle(file, size - file.tell(), path)

    if read().value != _MAGIC:
        raise FormatError(f"{path}: is a pickle, but not of weights that torch.save wrote; save them as safetensors")
    if read().value != _PROTOCOL:
        raise FormatError(f"{path}: is of an unknown protocol of torch.save; {_AGAIN}")
    match read().value:
        case {"little_endian": True}:
            pass
        case _:
            raise FormatError(f"{path}: was not written by a little-endian machine; {_AGAIN}")
    pickle = read()
    keys = read().value
    storages = {storage.key: storage for storage in _list_storages(pickle, path)}
    at = looked_at = file.tell()
    places = {}
    for key in keys if isinstance(keys, list) else ():
        # Storages without tensors have no type here: what follows them could not be found.
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None or key in places:
            raise FormatError(f"{path}: its storages are not those of its tensors; {_AGAIN}")
        file.seek(at)
        count = int.from_bytes(file.read(8), "little")
        places[key] = (at + 8, at + 8 + storage.nbytes)
        itemsize = storage.dtype.itemsize if storage.dtype else 1
        _check_size(storage, at + 8, at + 8 + count * itemsize, path)
        at = places[key][1]
    if at > size or places.keys() != storages.keys():
        raise FormatError(f"{path}: ends before all of its tensors; is the download complete?")
    return _Contents(pickle, places, ((0, looked_at),))


def _list_storages(pickle: Unpickled, path: Path) -> list[Storage]:
    """The storages of all tensors, each once."""
    found: dict[str, Storage] = {}
    for tensor in pickle.tensors:
        storage = tensor.storage
        if found.setdefault(storage.key, storage).nbytes != storage.nbytes:
            raise FormatError(f'{path}: storage "{storage.key}" has two sizes; is the file damaged?')
    return list(found.values())


def _check_size(storage: Storage, begin: int, end: int, path: Path) -> None:
    if end - begin != storage.nbytes:
        raise FormatError(
            f'{path}: storage "{storage.key}" has {end - begin:,} bytes, and its tensors say {storage.nbytes:,}; '
            "is the file damaged?"
        )


def _find_state(pickle: Unpickled, path: Path) -> dict[str, Tensor]:
    """The state dict, as it is or wrapped, if there is no tensor besides."""
    state = pickle.value
    for key in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
            break
    if not isinstance(state, dict) or not pickle.tensors:
        raise FormatError(f"{path}: holds no state dict, which is a dict of names and tensors; save one")
    if "__metadata__" in state:
        raise FormatError(f'{path}: a tensor is called "__metadata__", which no tensor of a safetensors file can be')
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            shown = name if isinstance(name, (str, int)) else type(name).__name__
            raise FormatError(
                f'{path}: "{shown}" is no tensor but {type(value).__name__}; save a dict of names and tensors alone'
            )
    held = {id(tensor) for tensor in state.values()}
    others = sum(id(tensor) not in held for tensor in pickle.tensors)
    if others:
        raise FormatError(
            f"{path}: holds {others:,} tensors besides its state dict, such as an optimizer's; "
            "save the state dict alone"
        )
    return state


def _locate(name: str, tensor: Tensor, begin: int, path: str) -> StoredTensor:
    """A tensor's bytes, which must be one run in the order of its elements."""
    count, contiguous = 1, True
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        contiguous &= size == 1 or stride == count
        count *= size
    if count and not contiguous:
        raise FormatError(
            f'{path}: tensor "{name}" of shape {list(tensor.shape)} has strides {list(tensor.strides)}: it is a view '
            "that is not contiguous; load the file with torch and save its .contiguous() instead"
        )
    size = tensor.dtype.itemsize
    if tensor.storage.dtype not in (None, tensor.dtype):
        raise DTypeError(f'{path}: tensor "{name}" is of another type than its storage; save a copy of it')
    if (tensor.offset + count) * size > tensor.storage.nbytes and count:
        raise FormatError(f'{path}: tensor "{name}" passes the end of its storage; is the file damaged?')
    offset = begin + (tensor.offset * size if count else 0)
    return StoredTensor(name, tensor.dtype, tensor.shape, path, offset, count * size)
