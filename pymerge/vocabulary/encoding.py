"""Values as the bytes of files."""

from __future__ import annotations

import json
from typing import Any

from pymerge.errors import FormatError

__all__ = ["dump", "dump_long", "encode"]


def dump(value: Any) -> bytes:
    """JSON with indents, as transformers writes small files."""
    return encode(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def dump_long(value: Any) -> bytes:
    """JSON on one line, for hundreds of thousands of entries: with indents Python's encoder takes seconds."""
    return encode(json.dumps(value, ensure_ascii=False) + "\n")


def encode(text: str) -> bytes:
    """UTF-8.

    Raises:
        FormatError: the text, which is a model's or a recipe's, holds half of a surrogate pair.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        near = text[max(error.start - 20, 0) : error.start + 20]
        raise FormatError(
            f'half of a character (a lone surrogate) in a tokenizer or chat template, near "{near}"'
        ) from None
