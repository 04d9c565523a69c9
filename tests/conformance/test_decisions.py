"""What the specifications say they decided, element by element, on examples that can be followed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pymerge.backends.reference import decide
from pymerge.dtypes import BY_NAME
from pymerge.ops import KEEP_ALL, Combine, Copy, Cut, Fusion, Lines, NearSwap, TaskMerge, TopK, WeightedSum

BASE = np.zeros(4, np.float32)
FIRST = np.array([1, -2, 3, 0], np.float32)
SECOND = np.array([-2, -1, 2, 4], np.float32)
#: Keeps magnitudes of at least 2.
TWO = TopK(Cut(int(np.float32(2).view(np.uint32)), 3))


def elect(consensus: str, **options: object) -> TaskMerge:
    return TaskMerge(2, (0, 1), (TWO, KEEP_ALL), (1.0, 1.0), consensus, (1.0, 1.0), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Copy(0), []),
        (WeightedSum((0, 1), (0.5, 0.5)), []),
        (elect("none"), [[0, 1, 1, 0], [1, 1, 1, 1]]),
        (elect("sum"), [[0, 1, 1, 0], [1, 1, 1, 1], [0, 1, 1, 0], [1, 1, 1, 1]]),
        (elect("overlap"), [[0, 1, 1, 0], [1, 1, 1, 1], [0, 1, 1, 0], [1, 1, 1, 1]]),
        (elect("sum", votes=(3.0, -1.0)), [[0, 1, 1, 0], [1, 1, 1, 1], [0, 1, 1, 0], [1, 0, 0, 1]]),
        (elect("sum", pick=True), [[0, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 1]]),
        (NearSwap(2, (0,), 2.0), [[1, 1, 0, 1]]),
        (Fusion(2, (0,), (2.0, 0.5), Lines(2, 2), 1.5), [[1, 1, 1, 0]]),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, list) else "",
)
@pytest.mark.parametrize("compute", ["float32", "float64"])
def test_decisions_are_these(request_: Combine, expected: list[list[int]], compute: str) -> None:
    if compute == "float64" and isinstance(request_, TaskMerge):
        wide = TopK(Cut(int(np.float64(2).view(np.uint64)), 3))
        request_ = TaskMerge(
            request_.base, request_.sources, (wide, KEEP_ALL), request_.coefficients, request_.consensus,
            request_.weights, votes=request_.votes, pick=request_.pick,
        )  # fmt: skip
    decided = decide(request_, [FIRST, SECOND, BASE], BY_NAME[compute])
    assert decided.tolist() == expected
