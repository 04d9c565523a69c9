"""The digest of a tensor's bytes by the letter of csrc/io/digest.h: slow, in plain integers."""

from __future__ import annotations

import struct

__all__ = ["digest"]

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_CHUNK = 4096


def _mix(x: int) -> int:
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
    return x ^ x >> 31


_KEYS = [_mix((i + 1) * _GOLDEN & _MASK) for i in range(_CHUNK // 8)]


def digest(data: bytes) -> str:
    """32 hexadecimal digits."""
    sums = [0, 0]
    for number, begin in enumerate(range(0, len(data), _CHUNK)):
        words = struct.unpack("<512Q", data[begin : begin + _CHUNK].ljust(_CHUNK, b"\0"))
        lanes = [0] * 8
        for i, (word, key) in enumerate(zip(words, _KEYS, strict=True)):
            mixed = word ^ key
            lanes[i % 8] += (mixed & 0xFFFFFFFF) * (mixed >> 32)
            lanes[(i ^ 1) % 8] += word
        for half in (0, 1):
            total = (2 * number + half) * _GOLDEN
            total += sum(_mix(lane & _MASK ^ _KEYS[8 * half + at]) for at, lane in enumerate(lanes))
            sums[half] += _mix(total & _MASK)
    halves = (_mix(sums[half] & _MASK ^ _mix((len(data) + half + 1) * _GOLDEN & _MASK)) for half in (0, 1))
    return "".join(f"{half:016x}" for half in halves)
