"""The rule that nothing is skipped that could have run; tests/conftest.py puts it in force.

A skip is in order only if its reason begins with a key of EXCUSES and that excuse is true here; any
other skip fails the run.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from disks import KINDS, forbids_image, lacks_tool

_ROOT = Path(__file__).resolve().parent.parent


def _has_cuda() -> bool:
    return Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi") is not None


def _has_isa(level: str) -> bool:
    from pymerge import _core

    return dict(_core.isa_levels()).get(level, False)


def find_compiler() -> str | None:
    """The C++ compiler that CMake would take."""
    return next(
        (path for name in (os.environ.get("CXX", "c++"), "g++", "clang++") if (path := shutil.which(name))), None
    )


@cache
def can_mount() -> bool:
    """Whether this process may mount file systems; a container's root often may not."""
    with TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
        if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
        return True


def limiting_cgroup(size: int) -> Path | None:
    """A new group below this process's own that holds at most `size` bytes; None if it may not be made.

    Whoever asked removes it when its processes have ended.
    """
    from pymerge.schedule.machine import list_memory_limits

    for file in list_memory_limits():
        group = file.parent / f"pymerge-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / file.name).write_text(str(size))
        except OSError:
            group.rmdir()
            continue
        return group
    return None


@cache
def _can_limit() -> bool:
    group = limiting_cgroup(1 << 30)
    if group is not None:
        group.rmdir()
    return group is not None


def _can_count() -> bool:
    from tools import instructions

    return instructions.can_count()


def _has_kept_code() -> bool:
    from tools import triton_code

    return triton_code.key() in triton_code.load()


def _could_have_cuda_kernels() -> bool:
    from tools import cuda_code

    return cuda_code.find_module() is not None or shutil.which(os.environ.get("CUDACXX", "nvcc")) is not None


def _has_cuobjdump() -> bool:
    from tools import cuda_code

    return cuda_code.find_tool("cuobjdump") is not None


def _has_kept_cuda_code() -> bool:
    from tools import cuda_code

    return cuda_code.key() in cuda_code.load()


def _has_kept_counts() -> bool:
    from tools import instructions

    return instructions.key() in instructions.load()


#: How a reason begins -> whether it holds on this machine.
EXCUSES: dict[str, Callable[[], bool]] = {
    "needs a CUDA device": lambda: not _has_cuda(),
    "needs root": lambda: not hasattr(os, "geteuid") or os.geteuid() != 0,
    "needs the right to mount file systems": lambda: not can_mount(),
    **{f"needs mkfs.{kind}": partial(lacks_tool, kind) for kind in KINDS},
    **{f"needs the right to mount an image of {kind}": partial(forbids_image, kind) for kind in KINDS},
    "needs a C++ compiler": lambda: find_compiler() is None,
    "needs a build tree": lambda: not any(_ROOT.glob("build/*/CMakeFiles")),
    "needs a memory cgroup": lambda: not _can_limit(),
    "needs valgrind": lambda: not _can_count(),
    "needs the compiler of the kept counts": lambda: not _has_kept_counts(),
    "needs the Triton of the kept figures": lambda: not _has_kept_code(),
    "needs CUDA kernels": lambda: not _could_have_cuda_kernels(),
    "needs cuobjdump": lambda: not _has_cuobjdump(),
    "needs the nvcc of the kept figures": lambda: not _has_kept_cuda_code(),
    "needs nm": lambda: shutil.which("nm") is None,
    "needs x86-64": lambda: platform.machine() not in ("x86_64", "AMD64"),
    "needs Linux": lambda: not sys.platform.startswith("linux"),
    "needs ISA v2": lambda: not _has_isa("v2"),
    "needs ISA v3": lambda: not _has_isa("v3"),
    "needs ISA v4": lambda: not _has_isa("v4"),
}


class SkipGate:
    """Collects the skips that have no true excuse and fails the run for them."""

    def __init__(self) -> None:
        self.unexcused: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Look at one test's outcome; an expected failure is not a skip."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self.judge(report.nodeid, report.longrepr)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Look at a module that was skipped as a whole."""
        if report.skipped:
            self.judge(report.nodeid, report.longrepr)

    def judge(self, node: str, representation: object) -> None:
        """Note a skip unless it is excused."""
        reason = str(representation[-1] if isinstance(representation, tuple) else representation)
        reason = reason.removeprefix("Skipped: ")
        if not any(reason.startswith(excuse) and holds() for excuse, holds in EXCUSES.items()):
            self.unexcused.append(f"{node}: {reason}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn a success into a failure if there is an unexcused skip."""
        if self.unexcused and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name them before pytest's closing line."""
        if self.unexcused:
            terminalreporter.section("skipped, though nothing on this machine forbids to run")
            for line in self.unexcused:
                terminalreporter.write_line(line, red=True)
