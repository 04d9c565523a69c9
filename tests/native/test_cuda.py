"""The CUDA kernels under sanitizers, on the processor: no thread waits too little, nothing is out of bounds.

To ThreadSanitizer the threads of an emulated block are threads; blocks run one after the other.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from native.watched import CSRC, ROOT, Watched, build

HERE = Path(__file__).resolve().parent / "cuda"
SOURCES = [
    *HERE.glob("*.cc"),
    *ROOT.glob("csrc/*/*.cu"),
    *ROOT.glob("kernels/*/*.cu"),
    *ROOT.glob("kernels/*/cuda/*.cu"),
]
SOURCES.append(CSRC / "core" / "error.cc")
FLAGS = ["-ffp-contract=off", "-Wno-unknown-pragmas", "-DPYMERGE_EMULATED_CUDA", f"-I{HERE}", f"-I{ROOT / 'kernels'}"]


@pytest.fixture(scope="module")
def threads(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """Under ThreadSanitizer."""
    return build(SOURCES, "thread", tmp_path_factory.mktemp("threads"), FLAGS)


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """Under AddressSanitizer."""
    return build(SOURCES, "address", tmp_path_factory.mktemp("addresses"), FLAGS)


def test_no_thread_waits_too_little(threads: Watched) -> None:
    assert threads.run("barrier") == (0, "done\n")
    assert threads.run("kernels") == (0, "done\n")


def test_a_missing_barrier_would_be_found(threads: Watched) -> None:
    status, found = threads.run("no barrier")
    assert status != 0
    assert "data race" in found
    assert "pass_on" in found


def test_nothing_is_out_of_bounds(addresses: Watched) -> None:
    assert addresses.run("inside") == (0, "done\n")
    assert addresses.run("kernels") == (0, "done\n")


@pytest.mark.parametrize("where", ["overrun", "shared overrun"])
def test_an_overrun_would_be_found(addresses: Watched, where: str) -> None:
    status, found = addresses.run(where)
    assert status != 0
    assert "heap-buffer-overflow" in found
