"""The rule of tests/skip_gate.py: a skip without a true excuse fails the run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from skip_gate import EXCUSES, SkipGate


def judge(reason: str) -> list[str]:
    """What the gate has against one skip."""
    gate = SkipGate()
    gate.judge("test_x.py::test_y", ("test_x.py", 7, f"Skipped: {reason}"))
    return gate.unexcused


def test_a_skip_for_any_reason_is_not_excused() -> None:
    assert judge("too slow today") == ["test_x.py::test_y: too slow today"]


@pytest.mark.parametrize(("holds", "count"), [(True, 0), (False, 1)])
def test_an_excuse_counts_only_where_it_is_true(monkeypatch: pytest.MonkeyPatch, holds: bool, count: int) -> None:
    monkeypatch.setitem(EXCUSES, "needs a CUDA device", lambda: holds)
    assert len(judge("needs a CUDA device: none was found")) == count


def test_an_unexcused_skip_turns_success_into_failure() -> None:
    gate = SkipGate()
    gate.judge("test_x.py::test_y", "no reason")

    session = SimpleNamespace(exitstatus=pytest.ExitCode.OK)
    gate.pytest_sessionfinish(cast(pytest.Session, session))
    assert session.exitstatus == pytest.ExitCode.TESTS_FAILED
