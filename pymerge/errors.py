"""Every error a user can meet, its exit code, and the place in a recipe that it points to.

A message says what is wrong, where, and what to do. Mistakes in a recipe are collected as
`Problem` values and raised together, so that one run shows all of them.

What a message quotes comes from files of strangers. It is shown, but it cannot act: whatever would
move a terminal's cursor, begin a line or turn the direction of text is written as its number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = [
    "BackendError",
    "DTypeError",
    "FormatError",
    "InternalError",
    "Location",
    "NonFiniteError",
    "Problem",
    "PymergeError",
    "RecipeError",
    "ResourceError",
    "ShapeError",
    "add_note",
    "find_interrupt",
    "printable",
]

#: Control characters (C0, DEL, C1), ends of lines, marks of direction, and halves of surrogate pairs.
_ACTIVE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, *, lines: bool = False) -> str:
    """`text` with what a terminal would act on written by its number, as JSON does; `lines` keeps line breaks."""
    return _ACTIVE.sub(lambda found: "\n" if lines and found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


#: Characters of a line of a message. A name may have a hundred million.
_LINE = 20_000


def _show_line(text: str) -> str:
    return printable(text if len(text) <= _LINE else f"{text[: _LINE // 2]} ... {text[-_LINE // 2 :]}")


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a text file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding about a recipe.

    `tolerable` marks what the established tool silently accepts: an error by default, a warning
    under `--lenient`.
    """

    message: str
    where: Location | None = None
    hint: str | None = None
    tolerable: bool = False

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f" ({self.hint})" if self.hint else ""
        return _show_line(f"{place}{self.message}{advice}")


class PymergeError(Exception):
    """Base of all errors that pymerge raises on purpose; each argument is one line of the message."""

    exit_code = 70

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(map(_show_line, lines)))


class RecipeError(PymergeError):
    """A recipe (or a command line) that cannot work; carries every problem that was found."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem] | str) -> None:
        found = (Problem(problems),) if isinstance(problems, str) else tuple(problems)
        self.problems: tuple[Problem, ...] = found
        super().__init__(*(str(problem) for problem in found))


class FormatError(PymergeError):
    """A checkpoint file that is damaged or not what it says it is."""

    exit_code = 3


class ShapeError(PymergeError):
    """Tensors whose shapes do not fit together."""

    exit_code = 3


class DTypeError(PymergeError):
    """A data type that cannot be merged, or types that do not fit together."""

    exit_code = 3


class NonFiniteError(PymergeError):
    """A merge made an infinity or NaN; usually an input holds one, or float16 overflowed."""

    exit_code = 3


class BackendError(PymergeError):
    """A backend or instruction set that was asked for and is not available, or failed."""

    exit_code = 4


class ResourceError(PymergeError):
    """Disk, memory or another resource of the machine ran out or refused."""

    exit_code = 5


class InternalError(PymergeError):
    """A bug in pymerge; please report it with the message."""

    exit_code = 70


def find_interrupt(error: BaseException) -> KeyboardInterrupt | None:
    """The Ctrl-C behind an error: Python up to 3.11 makes one that comes while a class is made a RuntimeError."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, KeyboardInterrupt):
        seen = seen.__cause__
    return seen


def add_note(error: BaseException, note: str) -> None:
    """Have `error` say `note` after its message, as BaseException.add_note does from Python 3.11 on."""
    error.__notes__ = [*getattr(error, "__notes__", ()), note]  # type: ignore[attr-defined,unused-ignore]
