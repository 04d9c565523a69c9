"""How a device's select goes on after a bracket that was of no use: to the cut of the specification."""

from __future__ import annotations

from functools import partial

import kernel_cases as cases
import pytest

from pymerge.backends.protocol import Ops
from pymerge.backends.reference import ReferenceOps
from pymerge.dtypes import BY_NAME
from pymerge.ops import Select, SelectSpread

#: As 16-bit leading parts of a key of float32: below everything, a single key, within, above everything, everything.
BRACKETS = ((0x0000, 0x0000), (0x3C00, 0x3C00), (0x3C00, 0x3C40), (0x7FE0, 0x7FF0), (0x0000, 0x7FFF))


def force(monkeypatch: pytest.MonkeyPatch, backend: str, ends: tuple[int, int], room: int) -> None:
    """Have every bracket be `ends`, and room for so many keys."""
    if backend == "cuda":
        from pymerge import _cuda

        for name in ("select", "select_spread"):
            monkeypatch.setattr(_cuda, name, partial(getattr(_cuda, name), bracket=(*ends, room)))
        return
    from pymerge.kernels.select.triton import search

    monkeypatch.setattr(search, "_SORTED", 0)
    monkeypatch.setattr(
        search, "_brackets", lambda scores, owners, *_: (scores.numbers(*ends * len(owners)).view(-1, 2), room)
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("room", [7, 400, 10_000])
@pytest.mark.parametrize("bracket", BRACKETS, ids=str)
def test_any_bracket_leads_to_the_cut(
    ops: Ops, backend: str, monkeypatch: pytest.MonkeyPatch, dtype: str, room: int, bracket: tuple[int, int]
) -> None:
    shift = 48 if dtype == "float64" else 16
    ends = bracket[0] << shift, min(bracket[1] << shift | 0xFFFF, (1 << shift + 15) - 1)
    force(monkeypatch, backend, ends, room)
    length = 3 * cases.BLOCK + 5
    operands = cases.make(dtype, length, 3, special=True)
    operands[1][::3] = operands[2][::3] = operands[3][::3]
    operands[2][1:60] = float("nan")
    counts = (1, 30, length // 2, length - 1, length, 0)
    for request in (Select((1, 2, 1, 2, 0, 2), counts, 0), SelectSpread((1, 2, 3), 0.4), SelectSpread((1, 1), 0.5)):
        answers = [each.measure(request, operands, BY_NAME[dtype]) for each in (ops, ReferenceOps())]
        assert answers[0] == answers[1], request
