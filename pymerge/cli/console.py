"""Where output goes: results to stdout, everything else to stderr. Plain text, easy to pipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

from pymerge.cli.streams import tell
from pymerge.errors import printable

__all__ = ["Format", "note", "print_facts", "print_json", "print_table"]


class Format(str, Enum):
    """How a command answers."""

    HUMAN = "human"
    JSON = "json"
    QUIET = "quiet"


def note(message: str) -> None:
    """Tell the user something that is not the result."""
    tell(printable(message))


def print_json(value: object) -> None:
    """Print a result for programs; what `printable` writes is JSON's own way to write it."""
    print(printable(json.dumps(value, indent=2, ensure_ascii=False, default=str), lines=True))


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a result in columns; the last one is not padded and never cut."""
    lines = [[printable(str(cell)) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header) - 1)]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        print("  ".join([*cells, line[-1]]).rstrip())


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print a result as names and values."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        print(f"{name.ljust(width)}  {printable(str(value), lines=True)}".rstrip())
