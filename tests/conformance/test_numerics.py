"""Every method against a float64 evaluation of its formula, and against mergekit's published arithmetic."""

from __future__ import annotations

import math
from functools import cache

import pytest

from pymerge.methods import method_names
from tools.numerics import CASES, DTYPES, PAGE, SHAPE, Case, Record, measure

EACH = pytest.mark.parametrize("case", CASES, ids=lambda case: case.label or case.method)
TYPES = pytest.mark.parametrize("dtype", DTYPES)


@cache
def _measure(place: int, dtype: str) -> Record:
    return measure(CASES[place], dtype)


def known(case: Case, dtype: str) -> Record:
    """Measured once for all tests."""
    return _measure(CASES.index(case), dtype)


def test_every_method_has_a_case() -> None:
    assert {case.method for case in CASES} == set(method_names())


@EACH
@TYPES
def test_the_stated_bound_holds(case: Case, dtype: str) -> None:
    record = known(case, dtype)
    assert record.share <= 1
    # Decisions that rounding changes are few: else a wrong formula could hide there.
    assert record.otherwise <= 0.01 * math.prod(SHAPE)


@EACH
@TYPES
def test_it_is_never_worse_than_rounding_every_operation(case: Case, dtype: str) -> None:
    record = known(case, dtype)
    if case.peer is None:
        return
    assert record.peer_error is not None
    assert record.peer_mean is not None
    assert record.peer_otherwise is not None
    # In float32 both round as often, if not in the same places, and luck decides by a tenth.
    rms, most = (1.1, 1.0) if dtype == "float32" else (1.0, 0.0)
    assert record.mean <= rms * record.peer_mean
    assert record.error <= most + record.peer_error
    assert record.otherwise <= record.peer_otherwise


def rows() -> dict[tuple[str, str], list[str]]:
    """The page's table by name and type."""
    lines = (line.strip("| ").split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if " r | " in line)
    return {(cells[0], cells[1]): [cell.strip() for cell in cells[2:]] for cells in lines}


@TYPES
@EACH
def test_the_page_has_the_table(case: Case, dtype: str) -> None:
    record: Record = known(case, dtype)
    largest, mean, otherwise, bound, *_ = rows()[record.name, dtype]
    assert bound == f"0.5 + {case.bound} r"
    # Sums of squares may be added in another order, by another numpy.
    assert float(largest) == pytest.approx(record.error, rel=0.05, abs=0.02)
    assert float(mean) == pytest.approx(record.mean, rel=0.05, abs=0.02)
    assert abs(int(otherwise) - record.otherwise) <= 1
