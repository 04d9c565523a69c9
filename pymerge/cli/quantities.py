"""Sizes as people write and read them."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["format_bytes", "format_count", "parse_memory", "parse_settings", "parse_shard_size"]

# The field's shard sizes: bare powers of 1000, where "B" is a billion.
_POWERS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
_UNITS = {f"{prefix}i": 1 << (10 * power) for power, prefix in enumerate("kmgt", start=1)} | {
    prefix: 1000**power for power, prefix in enumerate("kmgt", start=1)
}


def parse_shard_size(text: str) -> int:
    """Bytes from `5000000000`, `500M`, `5B` or `5GB`; 0 means one file.

    Raises:
        ValueError: it is none of these.
    """
    found = re.fullmatch(r"(\d+)(?:([kmbgt]?)|([kmgt])b)", text.strip().lower())
    if not found:
        raise ValueError(f"{text!r} is not a shard size; write bytes with k, M or B (billion), such as 5B or 500M")
    return int(found[1]) * _POWERS[found[2] or found[3] or ""]


def parse_memory(text: str) -> int:
    """Bytes from `2GiB`, `1.5 GB`, `800M` or a plain number.

    Raises:
        ValueError: it is none of these, or nothing.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d\d?)?)\s*([kmgt]i?)?b?", text.strip().lower())
    size = int(float(found[1]) * _UNITS.get(found[2] or "", 1)) if found else 0
    if size <= 0:
        raise ValueError(f"{text!r} is not an amount of memory; write such as 2GiB, 500MB or bytes")
    return size


def parse_settings(texts: Iterable[str]) -> dict[str, float | bool | str | list[float | bool | str]]:
    """Parameters from `t=0.5`, `normalize=true` and, one value for each model, `weight=0.6,0.4`.

    Raises:
        ValueError: one is none of these, or is given twice.
    """
    found: dict[str, float | bool | str | list[float | bool | str]] = {}
    for text in texts:
        name, sign, given = (part.strip() for part in text.partition("="))
        values = [value.strip() for value in given.split(",")]
        if not (name and sign and all(values)):
            raise ValueError(f"{text!r} is not NAME=VALUE or NAME=VALUE,VALUE")
        if name in found:
            raise ValueError(f"{name} is given twice")
        parsed = [_parse_value(value) for value in values]
        found[name] = parsed if len(parsed) > 1 else parsed[0]
    return found


def _parse_value(text: str) -> float | bool | str:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError:
        return text


def format_bytes(size: float) -> str:
    """`1.23 GB`: three significant digits, powers of 1000."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if abs(size) < 999.5:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} PB"


def format_count(count: int, noun: str) -> str:
    """`1 tensor`, `1,450 tensors`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
