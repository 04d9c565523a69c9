"""Answers that nobody can read: a stream that is closed, full, left by its reader, or of few characters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import toys

from pymerge.cli import streams

PYMERGE = f"{sys.executable} -m pymerge"


def shell(command: str, **environment: str) -> tuple[int, bytes, str]:
    """Exit code, stdout and stderr of a line for a shell."""
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.mark.parametrize("closed", [">&-", "2>&- >/dev/null", "<&- >&- 2>&-"])
def test_a_closed_stream_changes_nothing(here: Path, closed: str) -> None:
    toys.write_llama(here / "a")
    recipe = {"merge_method": "linear", "models": [{"model": "a"}], "parameters": {"weight": 1}}
    (here / "r.yml").write_text(json.dumps(recipe))
    assert shell(f"{PYMERGE} merge r.yml out {closed}")[:2] == (0, b"")
    # Nothing that was printed went into a file that has the stream's number.
    assert shell(f"{PYMERGE} verify out {closed}")[0] == 0
    assert shell(f"{PYMERGE} verify nowhere {closed}")[0] == 2


def test_a_full_disk_under_stdout_is_told_and_one_under_stderr_is_not(here: Path) -> None:
    toys.write_llama(here / "a")
    for command in ("inspect a", "methods", "methods ties", "--version"):
        code, _, told = shell(f"{PYMERGE} {command} > /dev/full")
        assert (code, told) == (5, "error: cannot write to stdout: No space left on device\n")
        code, answer, _ = shell(f"{PYMERGE} {command} 2> /dev/full")
        assert code == 0
        assert answer
    assert shell(f"{PYMERGE} inspect nowhere 2> /dev/full")[0] == 2


def test_a_reader_that_left_is_no_failure_of_the_command() -> None:
    code, _, told = shell(f"{PYMERGE} methods | true")
    assert told == ""
    assert code in (0, streams.UNHEARD)  # whichever ended first


def test_every_character_can_be_written(here: Path) -> None:
    toys.write_llama(here / "é")
    for encoding, written in {"ascii": b"\\xe9", "latin-1": b"\xe9", "utf-8": "é".encode()}.items():
        code, answer, told = shell(f"{PYMERGE} inspect é", PYTHONIOENCODING=encoding, LC_ALL="C.UTF-8")
        assert (code, told) == (0, "")
        assert written in answer
