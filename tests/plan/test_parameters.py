"""Values of recipes converted to what a method's parameter is."""

from __future__ import annotations

from typing import Any

import pytest

from pymerge.config.values import Scalar
from pymerge.methods.base import Parameter
from pymerge.plan.parameters import convert_value


def parameter(kind: type, **bounds: Any) -> Parameter:
    return Parameter("p", kind, "", **bounds)


@pytest.mark.parametrize(
    ("kind", "value", "converted"),
    [
        (float, 3, 3.0),
        (float, True, 1.0),
        (int, 10.0, 10),
        (int, True, 1),
        (bool, 0, False),
        (bool, 1.0, True),
        (str, 1.5, "1.5"),
        (str, "text", "text"),
    ],
)
def test_kinds(kind: type, value: Scalar, converted: Scalar) -> None:
    result = convert_value(parameter(kind), value)
    assert (result, type(result)) == (converted, type(converted))


@pytest.mark.parametrize("value", ["true", "True", "YES", "on", "t", "y", "1"])
def test_booleans_may_stand_in_quotes(value: str) -> None:
    assert convert_value(parameter(bool), value) is True
    opposite = {"true": "false", "yes": "no", "on": "off", "t": "f", "y": "n", "1": "0"}[value.lower()]
    assert convert_value(parameter(bool), opposite) is False


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (float, "x", "must be a number"),
        (float, float("nan"), "must be a number"),
        (int, 1.5, "must be a whole number"),
        (int, float("inf"), "must be a whole number"),
        (bool, 0.5, "must be true or false"),
        (bool, "yes please", "must be true or false"),
        (bool, "2", "must be true or false"),
        (float, "true", "must be a number"),
    ],
)
def test_wrong_kind(kind: type, value: Scalar, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        convert_value(parameter(kind), value)


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "message"),
    [
        ({"minimum": 0, "maximum": 1}, 1, 1.5, r"must be in \[0, 1\]"),
        ({"minimum": 0, "maximum": 1, "open_minimum": True}, 0.1, 0, r"must be in \(0, 1\]"),
        ({"minimum": 1}, 1, 0, "must be at least 1"),
        ({"minimum": 0, "open_minimum": True}, 1e-9, 0, "must be above 0"),
        ({"maximum": 2}, -9, 2.5, "must be at most 2"),
    ],
)
def test_bounds(bounds: dict[str, Any], inside: float, outside: float, message: str) -> None:
    assert convert_value(parameter(float, **bounds), inside) == inside
    with pytest.raises(ValueError, match=f"^{message}$"):
        convert_value(parameter(float, **bounds), outside)


def test_choices_keep_their_own_type() -> None:
    rescale = parameter(str, choices=(True, False, "inverse"))
    assert [convert_value(rescale, value) for value in (True, 0.0, "inverse")] == [True, False, "inverse"]
    assert convert_value(rescale, 1.0) is True
    assert [convert_value(rescale, value) for value in ("True", "off")] == [True, False]
    with pytest.raises(ValueError, match=r"^must be one of true, false, inverse$"):
        convert_value(rescale, "l3")
