"""The directory of a zip archive as byte ranges of its file; those that are stored, not compressed.

Only what torch.save writes: one disk, no encryption. Every number is checked against the file before it is used.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from pymerge.errors import FormatError

__all__ = ["Archive", "Entry", "read_archive"]

#: Bytes of a directory at most: of a million entries.
MAX_DIRECTORY = 128 << 20

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 0x1 | 0x40
#: In a 32-bit field: the number stands in the entry's extra field.
_ELSEWHERE = 0xFFFFFFFF
#: The local header has no sizes: they follow the data.
_SIZES_FOLLOW = 0x8


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive: `size` bytes from where its header, at `header`, ends."""

    name: bytes
    header: int
    size: int
    compressed: bool


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive's directory.

    Attributes:
        entries: by name.
        begin, end: where the directory lies; nothing of an entry lies behind its begin.
    """

    path: object
    begin: int
    end: int
    entries: Mapping[str, Entry] = field(default_factory=dict)

    def locate(self, file: BinaryIO, name: str) -> tuple[int, int]:
        """Where the data of an entry begins and ends, from its own header, which must say what the directory says.

        Raises:
            FormatError: it says something else, or the entry is compressed.
        """
        entry = self.entries[name]
        if entry.compressed:
            raise FormatError(
                f'{self.path}: entry "{name}" of the zip archive is compressed, and tensors are read in place; '
                "load the file with torch and save it again"
            )
        content = _read(file, entry.header, _LOCAL.size, self.path)
        mark, _, flags, method, _, _, _, packed, size, length, extra = _LOCAL.unpack(content)
        begin = entry.header + _LOCAL.size + length + extra
        end = begin + entry.size
        sizes = (packed, size)
        told = flags & _SIZES_FOLLOW or sizes in ((entry.size, entry.size), (_ELSEWHERE, _ELSEWHERE))
        if (
            mark != b"PK\x03\x04"
            or end > self.begin
            or method
            or flags & _ENCRYPTED
            or not told
            or length != len(entry.name)
            or _read(file, entry.header + _LOCAL.size, length, self.path) != entry.name
        ):
            raise FormatError(f'{self.path}: entry "{name}" of the zip archive is not what its directory says')
        return begin, end


def read_archive(file: BinaryIO, size: int, path: object) -> Archive:
    """Read the directory of an archive.

    Args:
        size: of the file.

    Raises:
        FormatError: it is damaged, encrypted, or too large.
    """
    end, count, begin, length = _find_directory(file, size, path)
    if begin + length > end or length > MAX_DIRECTORY or count > length // _CENTRAL.size:
        raise FormatError(f"{path}: the zip archive's directory is not where its end says, or is too large")
    content = _read(file, begin, length, path)
    entries: dict[str, Entry] = {}
    at = 0
    for _ in range(count):
        entry, at = _read_entry(content, at, path)
        name = entry.name.decode("utf-8", "backslashreplace")
        if name in entries:
            raise FormatError(f'{path}: entry "{name}" is in the zip archive twice')
        entries[name] = entry
    _check_overlap(entries, begin, path)
    return Archive(path, begin, size, entries)


def _find_directory(file: BinaryIO, size: int, path: object) -> tuple[int, int, int, int]:
    """(where the directory must have ended, entries, begin, length)."""
    tail = _read(file, max(0, size - _END.size - 0xFFFF), min(size, _END.size + 0xFFFF), path)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > len(tail):
        raise FormatError(f"{path}: the zip archive has no end; is the download complete?")
    end = size - len(tail) + at
    _, disk, first, here, count, length, begin, _ = _END.unpack_from(tail, at)
    if end >= _LOCATOR.size:
        mark, _, place, _ = _LOCATOR.unpack(_read(file, end - _LOCATOR.size, _LOCATOR.size, path))
        if mark == b"PK\x06\x07" and place + _END64.size <= end:
            found = _END64.unpack(_read(file, place, _END64.size, path))
            if found[0] == b"PK\x06\x06":
                disk, first, here, count, length, begin = found[4:]
                end = place
    if disk or first or here != count:
        raise FormatError(f"{path}: the zip archive is one of several parts; put them together first")
    return end, count, begin, length


def _read_entry(content: bytes, at: int, path: object) -> tuple[Entry, int]:
    if at + _CENTRAL.size > len(content) or content[at : at + 4] != b"PK\x01\x02":
        raise FormatError(f"{path}: the zip archive's directory is damaged")
    fields = _CENTRAL.unpack_from(content, at)
    flags, method, packed, size, length, extra, comment, header = (fields[i] for i in (3, 4, 8, 9, 10, 11, 12, 16))
    begin = at + _CENTRAL.size
    end = begin + length + extra + comment
    if end > len(content):
        raise FormatError(f"{path}: the zip archive's directory is damaged")
    name = content[begin : begin + length]
    if flags & _ENCRYPTED:
        shown = name.decode("utf-8", "backslashreplace")
        raise FormatError(f'{path}: entry "{shown}" of the zip archive is encrypted; decrypt the file first')
    wide = _read_wide(content[begin + length : begin + length + extra])
    size, packed, header = (next(wide, 0) if value == _ELSEWHERE else value for value in (size, packed, header))
    return Entry(name, header, packed, bool(method) or size != packed), end


def _read_wide(extra: bytes) -> Iterator[int]:
    """The 64-bit numbers of an extra field, in its order."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            whole = extra[at + 4 : at + 4 + length]
            for place in range(0, len(whole) - 7, 8):
                yield int.from_bytes(whole[place : place + 8], "little")
            return
        at += 4 + length


def _check_overlap(entries: Mapping[str, Entry], begin: int, path: object) -> None:
    """Refuse entries that share bytes: a small file would be large, or one tensor's bytes another's header."""
    free, before = 0, ""
    for name, entry in sorted(entries.items(), key=lambda item: item[1].header):
        if entry.header < free:
            raise FormatError(f'{path}: entries "{before}" and "{name}" of the zip archive overlap')
        free, before = entry.header + _LOCAL.size + len(entry.name) + entry.size, name
    if free > begin:
        raise FormatError(f'{path}: entry "{before}" passes the end of the zip archive; is the download complete?')


def _read(file: BinaryIO, at: int, size: int, path: object) -> bytes:
    file.seek(at)
    data = file.read(size)
    if len(data) < size:
        raise FormatError(f"{path}: the zip archive is cut short; is the download complete?")
    return data
