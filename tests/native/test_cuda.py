"""The CUDA kernels under sanitizers, on the processor: no thread waits too little, nothing is out of bounds.

To ThreadSanitizer the threads of an emulated block are threads; blocks run one after the other.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from skip_gate import find_compiler

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent / "cuda"
SOURCES = [
    *HERE.glob("*.cc"),
    *ROOT.glob("csrc/*/*.cu"),
    *ROOT.glob("kernels/*/*.cu"),
    *ROOT.glob("kernels/*/cuda/*.cu"),
]
SOURCES.append(ROOT / "csrc" / "core" / "error.cc")
FLAGS = ["-std=c++20", "-O1", "-g", "-ffp-contract=off", "-Wno-unknown-pragmas", "-DPYMERGE_EMULATED_CUDA"]
INCLUDED = [f"-I{folder}" for folder in (HERE, ROOT / "csrc", ROOT / "kernels")]


class Watched:
    """The kernels, built with a sanitizer."""

    def __init__(self, sanitizer: str, folder: Path) -> None:
        compiler = find_compiler()
        if compiler is None:
            pytest.skip("needs a C++ compiler")
        flags = [*FLAGS, *INCLUDED, f"-fsanitize={sanitizer}"]

        def build(source: Path) -> str:
            made = folder / f"{source.parent.parent.name}-{source.parent.name}-{source.name}.o"
            subprocess.run([compiler, *flags, "-x", "c++", "-c", str(source), "-o", str(made)], check=True)
            return str(made)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(build, SOURCES))
        self._program = folder / "watched"
        subprocess.run([compiler, *flags, *objects, "-o", str(self._program)], check=True)

    def run(self, what: str) -> tuple[int, str]:
        """The exit status, and what was found."""
        # ThreadSanitizer cannot always have the addresses that it wants where they are random.
        fixed = ["setarch", "-R"] if shutil.which("setarch") else []
        command = [*fixed, str(self._program), what]
        # It also waits a second before it ends, for threads that there are not.
        environment = {**os.environ, "TSAN_OPTIONS": "atexit_sleep_ms=0"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        # AddressSanitizer warns of switching stacks, of which it is told.
        found = [line for line in done.stderr.splitlines() if "doesn't fully support makecontext" not in line]
        return done.returncode, "\n".join(found)


@pytest.fixture(scope="module")
def threads(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """Under ThreadSanitizer."""
    return Watched("thread", tmp_path_factory.mktemp("threads"))


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """Under AddressSanitizer."""
    return Watched("address", tmp_path_factory.mktemp("addresses"))


def test_no_thread_waits_too_little(threads: Watched) -> None:
    assert threads.run("barrier") == (0, "")
    assert threads.run("kernels") == (0, "")


def test_a_missing_barrier_would_be_found(threads: Watched) -> None:
    status, found = threads.run("no barrier")
    assert status != 0
    assert "data race" in found
    assert "pass_on" in found


def test_nothing_is_out_of_bounds(addresses: Watched) -> None:
    assert addresses.run("inside") == (0, "")
    assert addresses.run("kernels") == (0, "")


@pytest.mark.parametrize("where", ["overrun", "shared overrun"])
def test_an_overrun_would_be_found(addresses: Watched, where: str) -> None:
    status, found = addresses.run(where)
    assert status != 0
    assert "heap-buffer-overflow" in found
