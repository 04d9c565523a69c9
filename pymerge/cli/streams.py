"""Standard streams that may be closed, full, of few characters, or left by their reader."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from pathlib import Path

from pymerge.errors import ResourceError

__all__ = ["UNHEARD", "end_streams", "exit_code_of", "is_of_stdout", "prepare_streams", "tell"]

#: What a shell says of a program whose reader has left (128 + SIGPIPE).
UNHEARD = 141


def prepare_streams() -> None:
    """Have streams that are there and take every character.

    A file that is opened where a standard stream was closed would get its number, and its text.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for number, name in enumerate(("stdout", "stderr"), 1):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def tell(line: str) -> None:
    """Write a line to stderr, if it takes any."""
    with suppress(OSError):
        print(line, file=sys.stderr)


def exit_code_of(error: OSError) -> int:
    """The exit code of a program that cannot write to stdout; says why, unless nobody listens."""
    if error.errno == errno.EPIPE:
        return UNHEARD
    tell(f"error: cannot write to stdout: {error.strerror}")
    return ResourceError.exit_code


def end_streams(status: int) -> int:
    """Have everything written; returns the program's exit code."""
    try:
        sys.stdout.flush()
    except OSError as error:
        status = status or exit_code_of(error)
    with suppress(OSError):
        sys.stderr.flush()
    return status


def is_of_stdout(error: OSError) -> bool:
    """Whether an error was met by writing an answer: nothing else is written by the files of the command line."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None or error.filename is not None:
        return False
    file = Path(place.tb_frame.f_code.co_filename)
    return file.parent == Path(__file__).parent or "typer" in file.parts
