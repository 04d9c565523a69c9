"""The rule that nothing is skipped that could have run; tests/conftest.py puts it in force.

A skip is in order only if its reason begins with a key of EXCUSES and that excuse is true here; any
other skip fails the run.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def _has_cuda() -> bool:
    return Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi") is not None


def _has_isa(level: str) -> bool:
    from pymerge import _core

    return dict(_core.isa_levels()).get(level, False)


#: How a reason begins -> whether it holds on this machine.
EXCUSES: dict[str, Callable[[], bool]] = {
    "needs a CUDA device": lambda: not _has_cuda(),
    "needs root": lambda: not hasattr(os, "geteuid") or os.geteuid() != 0,
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
