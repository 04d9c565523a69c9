"""Parameter resolution: precedence, filters, gradients."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pymerge.config import Case, Cases, Gradient, Setting, resolve
from pymerge.config.resolve import evaluate_gradient
from pymerge.errors import Location


def value(levels: list[dict[str, Setting]], name: str = "model.layers.0.mlp.up_proj.weight", t: float = 0.0) -> object:
    found = resolve(levels, "p", name, t)
    return found[0] if found else None


def test_the_first_level_that_decides_wins() -> None:
    assert value([{}, {"p": Setting(1)}, {"p": Setting(2)}]) == 1


def test_nothing_anywhere_is_none() -> None:
    assert resolve([{}, {"q": Setting(1)}], "p", "x", 0.0) is None


def test_unmatched_conditional_falls_to_the_next_level() -> None:
    levels = [{"p": Setting(Cases((Case(1, "lm_head"),)))}, {"p": Setting(2)}]
    assert value(levels) == 2
    assert value(levels, "lm_head.weight") == 1


@pytest.mark.parametrize("everything", [None, "*"])
def test_the_first_matching_entry_decides(everything: str | None) -> None:
    cases = Cases((Case(1, "mlp"), Case(2, everything), Case(3, "self_attn")))
    assert value([{"p": Setting(cases)}]) == 1
    assert value([{"p": Setting(cases)}], "self_attn") == 2


def test_filters_are_plain_text() -> None:
    assert value([{"p": Setting(Cases((Case(1, "mlp.*"),)))}]) is None


def test_the_place_of_the_deciding_entry_is_returned() -> None:
    here, there = Location("r", 1, 2), Location("r", 3, 4)
    cases = Cases((Case(Gradient((1.0,)), "mlp", there),))
    assert resolve([{"p": Setting(cases, here)}], "p", "mlp", 0.0) == (1.0, there)


def test_matched_cases_are_recorded() -> None:
    used, unused = Case(1, "mlp"), Case(2, None)
    matched: set[Case] = set()
    resolve([{"p": Setting(Cases((used, unused)))}], "p", "mlp", 0.0, matched)
    assert matched == {used}


@pytest.mark.parametrize(
    ("values", "t", "expected"),
    [
        ((0, 0.5, 0.3, 0.7, 1), 0.0, 0.0),
        ((0, 0.5, 0.3, 0.7, 1), 1.0, 1.0),
        ((0, 0.5, 0.3, 0.7, 1), 0.25, 0.5),
        ((0, 1), 0.125, 0.125),
        ((2, 1, 4), 0.75, 2.5),
        ((0.7,), 0.4, 0.7),
        ((True, False, True), 0.49, True),
        ((True, False, True), 0.5, False),
        (("a", "b"), 0.99, "a"),
        (("a", "b"), 1.0, "b"),
        ((True, 3), 0.5, 2.0),
    ],
)
def test_gradient(values: tuple[float, ...], t: float, expected: object) -> None:
    assert evaluate_gradient(values, t) == expected


@pytest.mark.parametrize(("t", "expected"), [(0.0, 1), (0.49, 1), (0.5, 0), (0.99, 0), (1.0, 1)])
def test_a_gradient_of_what_cannot_be_mixed_is_selected_from(t: float, expected: int) -> None:
    assert evaluate_gradient((1, 0, 1), t, selected=True) == expected


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9), st.floats(0, 1))
def test_gradient_stays_within_its_values(values: list[float], t: float) -> None:
    result = evaluate_gradient(values, t)
    assert isinstance(result, float)
    slack = 1e-9 * max(1.0, *map(abs, values))
    assert min(values) - slack <= result <= max(values) + slack
