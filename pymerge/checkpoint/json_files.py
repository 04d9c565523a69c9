"""JSON files of a model folder, which strangers wrote: of bounded size and depth, and really in the folder."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

from pymerge.checkpoint.links import check_link
from pymerge.errors import FormatError

__all__ = ["parse_json", "read_json", "read_small_file"]

#: Bytes of a file at most, as of a safetensors header: an index of a million tensors is smaller.
MAX_BYTES = 100_000_000
#: Levels of nesting at most. Copying and writing a value again recurse.
MAX_DEPTH = 64


def read_json(path: Path, *, unique: bool = False) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: of a file in a model folder.
        unique: refuse objects in which a key is given twice.

    Raises:
        FormatError: the file is missing, is no regular file, is too large, is not UTF-8 JSON, or holds
            something else than an object.
    """
    return parse_json(path, read_small_file(path), unique=unique)


def read_small_file(path: Path) -> bytes:
    """Read a file of a model folder that is no weights.

    Raises:
        FormatError: it is missing, is no regular file, is too large, or is a link to something that is not a model's.
    """
    check_link(path)
    try:
        return _read(path)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from None


def parse_json(path: Path, content: bytes, *, unique: bool = False) -> dict[str, Any]:
    """Read what `path` holds, as `read_json` does."""
    try:
        value = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_refuse_twins if unique else None)
    except json.JSONDecodeError as error:
        raise FormatError(f"{path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not text in UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise FormatError(f"{path}: values are nested too deeply") from None
    except _TwinError as error:
        raise FormatError(f'{path}: "{error}" is given twice in one object; download the file again') from None
    except ValueError as error:  # a number of thousands of digits
        raise FormatError(f"{path}: not valid JSON: {str(error).partition(';')[0]}") from None
    if not isinstance(value, dict):
        raise FormatError(f"{path}: expected a JSON object")
    if _is_deeper(value, MAX_DEPTH):
        raise FormatError(f"{path}: values are nested too deeply, over {MAX_DEPTH} levels")
    return value


class _TwinError(Exception):
    """A key that is given twice."""


def _refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise _TwinError(next(key for key, count in counts.items() if count > 1))
    return found


def _read(path: Path) -> bytes:
    # Opening a pipe waits for its writer, unless told not to.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FormatError(f"{path}: cannot be read: it is no regular file")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise FormatError(f"{path}: is larger than {MAX_BYTES} bytes, more than any model needs")
    return content


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether containers are nested in more than so many levels; level by level, without recursion."""
    level = [value]
    for _ in range(levels):
        level = [
            item
            for each in level
            for item in (each.values() if isinstance(each, dict) else each)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return False
    return True
