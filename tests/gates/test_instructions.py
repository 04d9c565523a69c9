"""No kernel, method or copy takes more instructions per element than when its count was last kept."""

from __future__ import annotations

import pytest

from pymerge.kernels import SPECS
from pymerge.methods import method_names
from tools import instructions

HINT = "if that is meant, keep the new counts: python -m tools.instructions --update"


@pytest.fixture(scope="module")
def kept() -> instructions.Counts:
    """The counts of this build's compiler and level."""
    counts = instructions.load().get(instructions.key())
    if counts is None:
        pytest.skip(f"needs the compiler of the kept counts, not {instructions.key()}")
    return counts


def test_nothing_takes_more_instructions_than_kept(kept: instructions.Counts) -> None:
    if not instructions.can_count():
        pytest.skip("needs valgrind")
    failures, _ = instructions.compare(instructions.count(), kept)
    assert not failures, "\n".join([*failures, HINT])


def test_every_kernel_and_method_has_a_kept_count(kept: instructions.Counts) -> None:
    covered = {"/".join(case.split("/")[:2]) for case in kept}
    wanted = {f"kernel/{name}" for name in SPECS} | {f"method/{name}" for name in method_names()}
    assert sorted(wanted - covered) == [], HINT


@pytest.mark.parametrize(
    ("each", "call", "verdict"),
    [
        (10.0, 100, ""),
        (10.49, 100, ""),
        (10.56, 100, "10.0 -> 10.56 instructions per element (+5.6%): more"),
        (9.0, 100, ""),
        (7.9, 100, "protects nothing"),
        (10.0, 259, ""),
        (10.0, 261, "100 -> 261 thousand instructions per call"),
    ],
)
def test_five_percent_more_fails_and_a_stale_count_too(each: float, call: int, verdict: str) -> None:
    failures, improvements = instructions.compare({"case": (each, call)}, {"case": (10.0, 100)})
    assert len(failures) == bool(verdict)
    assert verdict in "".join(failures)
    assert len(improvements) == (each == 9.0)


@pytest.mark.parametrize(("each", "failing"), [(0.0, False), (0.02, False), (0.03, True)])
def test_a_case_without_instructions_per_element_can_be_compared(each: float, failing: bool) -> None:
    failures, improvements = instructions.compare({"copy": (each, 100)}, {"copy": (0.0, 100)})
    assert bool(failures) == failing
    assert not improvements


def test_threads_that_wait_for_each_other_are_given_more_slack() -> None:
    # Seen on a busy machine: 0.24 instead of 0.01.
    assert not instructions.compare({"engine/copy": (0.24, 100)}, {"engine/copy": (0.01, 100)})[0]
    assert instructions.compare({"engine/copy": (1.0, 100)}, {"engine/copy": (0.01, 100)})[0]


@pytest.mark.parametrize(("counted", "kept"), [({"new": (1.0, 1)}, {}), ({}, {"old": (1.0, 1)})])
def test_a_case_on_one_side_only_fails(counted: instructions.Counts, kept: instructions.Counts) -> None:
    assert len(instructions.compare(counted, kept)[0]) == 1
