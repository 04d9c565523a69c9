"""The header of a GGUF file: metadata, and which tensors lie where. The file's word is taken for nothing.

Versions 2 and 3, little-endian. Long arrays and texts, such as a tokenizer's vocabulary, are passed over.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pymerge.errors import FormatError, ResourceError

__all__ = ["KIND_NUMBERS", "GgufHeader", "GgufTensor", "read_gguf_header"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
#: Bytes of a header at most. The largest vocabularies take 20 MB.
_MOST_BYTES = 1 << 27
_STEP = 1 << 20
_MOST_NAME = 1 << 16
_MOST_DIMS = 4
#: Longer arrays and texts are not kept.
_MOST_KEPT = 1 << 16
_ALIGNMENT = 32

#: Number of a value's type -> how struct reads it.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_LENGTH = struct.Struct("<Q")

#: Number of a tensor's type -> (name, elements of a block, bytes of a block).
_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 30: ("BF16", 1, 2),
}  # fmt: skip
#: Name of a tensor's type -> its number.
KIND_NUMBERS = {name: number for number, (name, *_) in _TYPES.items()}
#: Those that are known and not read, for messages.
_OTHER_TYPES = {
    9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S",
    22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0",
    35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor.

    Attributes:
        kind: of its blocks: F32, F16, BF16, or a name of `kernels/dequantize/packed.py`.
        shape: row-major, which is the other way round in the file.
        offset: absolute, in bytes.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a file says of itself.

    Attributes:
        metadata: by key; None for what is too long to keep.
        size: of the header, in bytes.
        spans: where each pair of the metadata begins and ends.
    """

    metadata: Mapping[str, Any]
    tensors: tuple[GgufTensor, ...]
    size: int
    spans: Mapping[str, tuple[int, int]]


def read_gguf_header(path: Path) -> GgufHeader:
    """Read and check a header; no weight is read.

    Raises:
        FormatError: it is no GGUF file, is damaged, or holds a type that cannot be read.
        ResourceError: it cannot be opened.
    """
    try:
        with path.open("rb") as file:
            cursor = _Cursor(path, file, path.stat().st_size)
            return _read(cursor)
    except OSError as error:
        raise ResourceError(f"{path}: cannot be read: {error.strerror or error}") from None


class _Cursor:
    """Reads forward through a header, never past the file's end or the most that a header may have."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self.size, self.at = path, size, 0
        self._file, self._end = file, min(size, _MOST_BYTES)
        self._held = bytearray()

    def fail(self, what: str) -> FormatError:
        return FormatError(f"{self.path}: {what}; download the file again")

    def skip(self, size: int) -> int:
        """Where the next `size` bytes begin; they are there, not necessarily held."""
        if size > self._end - self.at:
            over = self.size > _MOST_BYTES and size <= self.size - self.at
            raise self.fail(f"its header is over {_MOST_BYTES} bytes" if over else "ends inside its header")
        begin, self.at = self.at, self.at + size
        return begin

    def take(self, size: int) -> bytes:
        begin = self.skip(size)
        while len(self._held) < self.at:
            read = self._file.read(max(_STEP, self.at - len(self._held)))
            if not read:
                raise self.fail("ends inside its header")
            self._held += read
        return bytes(self._held[begin : self.at])

    def skip_texts(self, count: int) -> None:
        """Pass over so many texts; vocabularies have hundreds of thousands."""
        held, unpack = self._held, _LENGTH.unpack_from
        for _ in range(count):
            begin = self.skip(_LENGTH.size)
            if len(held) < self.at:
                self.at = begin
                self.take(_LENGTH.size)
            size = unpack(held, begin)[0]
            if size > self._end - self.at:
                self.skip(size)
            self.at += size

    def number(self, form: str) -> Any:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def text(self, most: int, what: str) -> str:
        size = self.number("Q")
        if size > most:
            raise self.fail(f"{what} has {size} bytes")
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise self.fail(f"{what} is not text in UTF-8") from None


def _read(cursor: _Cursor) -> GgufHeader:
    if cursor.take(4) != _MAGIC:
        raise cursor.fail("is no GGUF file")
    version = cursor.number("I")
    if version not in _VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        what = "big-endian" if swapped in _VERSIONS else f"of version {version}"
        raise FormatError(f"{cursor.path}: the GGUF file is {what}, and only little-endian 2 and 3 are read")
    tensors, pairs = cursor.number("Q"), cursor.number("Q")
    # An entry of either kind has more bytes.
    if max(tensors, pairs) > cursor.size // 12:
        raise cursor.fail(f"cannot hold {tensors} tensors and {pairs} values")
    metadata: dict[str, Any] = {}
    spans: dict[str, tuple[int, int]] = {}
    for _ in range(pairs):
        begin = cursor.at
        key = cursor.text(_MOST_NAME, "a key of the metadata")
        if key in metadata:
            raise cursor.fail(f'"{key[:100]}" is given twice')
        metadata[key] = _read_value(cursor, key, cursor.number("I"))
        spans[key] = begin, cursor.at
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    if type(alignment) is not int or not 8 <= alignment <= 1 << 20 or alignment & (alignment - 1):
        raise cursor.fail(f"general.alignment is {str(alignment)[:100]}")
    entries = [_read_entry(cursor) for _ in range(tensors)]
    size = cursor.at
    data = -(-size // alignment) * alignment
    found = tuple(_place(cursor, entry, data, alignment) for entry in entries)
    _refuse_overlaps(cursor, found)
    return GgufHeader(metadata, found, size, spans)


def _read_value(cursor: _Cursor, key: str, kind: int) -> Any:
    if kind in _NUMBERS:
        return cursor.number(_NUMBERS[kind])
    if kind == _TEXT:
        size = cursor.number("Q")
        if size > _MOST_KEPT:
            cursor.skip(size)
            return None
        return cursor.take(size).decode(errors="replace")
    if kind != _ARRAY:
        raise cursor.fail(f'"{key[:100]}" has the unknown type {kind}')
    inner, count = cursor.number("I"), cursor.number("Q")
    if inner == _TEXT:
        cursor.skip_texts(count)
        return None
    if inner not in _NUMBERS:
        raise cursor.fail(f'"{key[:100]}" is an array of the type {inner}')
    form = _NUMBERS[inner]
    if count > _MOST_KEPT:
        cursor.skip(count * struct.calcsize("<" + form))
        return None
    return list(struct.unpack(f"<{count}{form}", cursor.take(count * struct.calcsize("<" + form))))


def _read_entry(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """(name, shape, type, offset from where the data begin)."""
    name = cursor.text(_MOST_NAME, "a tensor's name")
    dims = cursor.number("I")
    if not name or not name.isprintable() or not 1 <= dims <= _MOST_DIMS:
        raise cursor.fail(f"tensor {name[:100]!r} has {dims} dims")
    shape = tuple(cursor.number("Q") for _ in range(dims))[::-1]
    return name, shape, cursor.number("I"), cursor.number("Q")


def _place(cursor: _Cursor, entry: tuple[str, tuple[int, ...], int, int], data: int, alignment: int) -> GgufTensor:
    name, shape, number, offset = entry
    if number not in _TYPES:
        kind = _OTHER_TYPES.get(number, f"the unknown type {number}")
        raise FormatError(
            f'{cursor.path}: tensor "{name}" is {kind}, which is not read; use the original weights, or a file of '
            f"{', '.join(kind for kind, *_ in _TYPES.values())} alone"
        )
    kind, elements, size = _TYPES[number]
    count = 1
    for dim in shape:
        count *= dim
    nbytes = count // elements * size
    if count == 0 or shape[-1] % elements:
        raise cursor.fail(f'tensor "{name}" of {kind} has the shape {list(shape)}')
    if offset % alignment or nbytes > cursor.size - data or offset > cursor.size - data - nbytes:
        raise cursor.fail(f'tensor "{name}" is not where the header says: {nbytes} bytes at {offset}')
    return GgufTensor(name, kind, shape, data + offset, nbytes)


def _refuse_overlaps(cursor: _Cursor, tensors: tuple[GgufTensor, ...]) -> None:
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise cursor.fail("a tensor is listed twice")
    end = 0
    for tensor in sorted(tensors, key=lambda each: each.offset):
        if tensor.offset < end:
            raise cursor.fail(f'tensor "{tensor.name}" overlaps another')
        end = tensor.offset + tensor.nbytes
