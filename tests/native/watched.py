"""C++ programs of tests, built as they are or with a sanitizer, and run."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from skip_gate import find_compiler

ROOT = Path(__file__).resolve().parent.parent.parent
CSRC = ROOT / "csrc"
#: Sanitizer, as -fsanitize= takes it -> what the compiler is told besides.
_SANITIZERS = {
    "": ["-Wall", "-Wextra", "-Werror"],
    # It does not know fences, which is a warning; what they order is ordered by atomics too.
    "thread": ["-g1", "-Wno-tsan"],
    "address": ["-g1"],
    "address,undefined": ["-g1", "-fno-sanitize-recover=undefined"],
}


def _compiler() -> str:
    compiler = find_compiler()
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    return compiler


def compile_all(sources: Iterable[Path], sanitizer: str, folder: Path, flags: Sequence[str] = ()) -> list[Path]:
    """The objects of `sources`, made in `folder`."""
    command = [_compiler(), "-std=c++20", "-O1", "-pthread", f"-I{CSRC}", *_SANITIZERS[sanitizer]]
    command += [f"-fsanitize={sanitizer}"] * bool(sanitizer) + [*flags]

    def build(numbered: tuple[int, Path]) -> Path:
        number, source = numbered
        made = folder / f"{number}-{source.name}.o"
        subprocess.run([*command, "-x", "c++", "-c", str(source), "-o", str(made)], check=True)
        return made

    folder.mkdir(exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(build, enumerate(sources)))


class Watched:
    """A program, built in `folder` of objects that were compiled with the same sanitizer (or none)."""

    def __init__(self, objects: Iterable[Path], sanitizer: str, folder: Path) -> None:
        self._program = folder / "watched"
        watch = [f"-fsanitize={sanitizer}"] * bool(sanitizer)
        subprocess.run([_compiler(), "-pthread", *watch, *map(str, objects), "-o", str(self._program)], check=True)

    def run(self, *arguments: str, seconds: int = 300) -> tuple[int, str]:
        """The exit status, and what it said or was found; a program that hangs is a failure."""
        # ThreadSanitizer cannot always have the addresses that it wants where they are random.
        fixed = ["setarch", "-R"] if shutil.which("setarch") else []
        command = [*fixed, str(self._program), *arguments]
        # It also waits a second before it ends, for threads that there are not.
        options = {"TSAN_OPTIONS": "atexit_sleep_ms=0", "UBSAN_OPTIONS": "abort_on_error=1"}
        done = subprocess.run(
            command, env={**os.environ, **options}, capture_output=True, text=True, check=False, timeout=seconds
        )
        # AddressSanitizer warns of switching stacks, of which it is told.
        found = [line for line in done.stderr.splitlines() if "doesn't fully support makecontext" not in line]
        return done.returncode, done.stdout + "\n".join(found)


def build(sources: Iterable[Path], sanitizer: str, folder: Path, flags: Sequence[str] = ()) -> Watched:
    """The program of `sources`."""
    return Watched(compile_all(sources, sanitizer, folder, flags), sanitizer, folder)
