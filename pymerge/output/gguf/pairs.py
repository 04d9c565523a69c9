"""Metadata of GGUF files, encoded: each key with its value, by type."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

__all__ = ["Integers", "Value", "encode_pair", "encode_pairs"]

_UINT32, _INT32, _FLOAT, _BOOL, _TEXT, _ARRAY = 4, 5, 6, 7, 8, 9


class Integers(list[int]):
    """An array of int32; of two kinds of lists, the one that may be empty."""


#: Integers are unsigned, of 32 bits, floats of 32 bits.
Value = bool | int | float | str | Integers | Sequence[float] | Sequence[str]


def encode_pair(key: str, value: Value) -> bytes:
    """One key and its value.

    Raises:
        OverflowError: an integer has more than 32 bits or is below zero.
    """
    return _encode_text(key) + _encode_value(value)


def encode_pairs(values: Mapping[str, Value | None]) -> dict[str, bytes]:
    """Many, by key; None is left out."""
    return {key: encode_pair(key, value) for key, value in values.items() if value is not None}


def _encode_value(value: Value) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        if not 0 <= value < 1 << 32:
            raise OverflowError(f"{value} is not from 0 to {(1 << 32) - 1}")
        return struct.pack("<II", _UINT32, value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT, value)
    if isinstance(value, str):
        return struct.pack("<I", _TEXT) + _encode_text(value)
    if isinstance(value, Integers):
        return struct.pack(f"<IIQ{len(value)}i", _ARRAY, _INT32, len(value), *value)
    if value and isinstance(value[0], str):
        return struct.pack("<IIQ", _ARRAY, _TEXT, len(value)) + b"".join(map(_encode_text, map(str, value)))
    return struct.pack(f"<IIQ{len(value)}f", _ARRAY, _FLOAT, len(value), *value)


def _encode_text(text: str) -> bytes:
    # Halves of characters, which JSON may hold, as in JSON.
    content = text.encode("utf-8", "backslashreplace")
    return struct.pack("<Q", len(content)) + content
