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
    "thread": ["-g", "-Wno-tsan"],
    "address": ["-g"],
    "address,undefined": ["-g", "-fno-sanitize-recover=undefined"],
}


class Watched:
    """A program of `sources`, built with a sanitizer (or none) in `folder`."""

    def __init__(self, sources: Iterable[Path], sanitizer: str, folder: Path, flags: Sequence[str] = ()) -> None:
        compiler = find_compiler()
        if compiler is None:
            pytest.skip("needs a C++ compiler")
        flags = ["-std=c++20", "-O1", "-pthread", f"-I{CSRC}", *_SANITIZERS[sanitizer], *flags]
        if sanitizer:
            flags.append(f"-fsanitize={sanitizer}")

        def build(source: Path) -> str:
            made = folder / ("-".join(source.relative_to(ROOT).parts) + ".o")
            subprocess.run([compiler, *flags, "-x", "c++", "-c", str(source), "-o", str(made)], check=True)
            return str(made)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(build, sources))
        self._program = folder / "watched"
        subprocess.run([compiler, *flags, *objects, "-o", str(self._program)], check=True)

    def run(self, *arguments: str) -> tuple[int, str]:
        """The exit status, and what it said or was found; a program that hangs is a failure."""
        # ThreadSanitizer cannot always have the addresses that it wants where they are random.
        fixed = ["setarch", "-R"] if shutil.which("setarch") else []
        command = [*fixed, str(self._program), *arguments]
        # It also waits a second before it ends, for threads that there are not.
        environment = {**os.environ, "TSAN_OPTIONS": "atexit_sleep_ms=0"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        # AddressSanitizer warns of switching stacks, of which it is told.
        found = [line for line in done.stderr.splitlines() if "doesn't fully support makecontext" not in line]
        return done.returncode, done.stdout + "\n".join(found)
