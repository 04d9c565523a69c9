"""Method parameters: what a recipe says, checked against what the method declares."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from pymerge.config import suggest_name
from pymerge.config.values import Case, Cases, Gradient, Input, MergeConfig, Scalar, Setting
from pymerge.methods.base import Method, Parameter, Value
from pymerge.plan.findings import Findings
from pymerge.plan.sources import Group

__all__ = ["check_settings", "convert_value", "describe_owner", "iterate_levels"]


def convert_value(parameter: Parameter, value: Scalar) -> Value:
    """Convert a recipe's value to the parameter's kind.

    Raises:
        ValueError: it is of another kind or out of bounds; the message says what it must be.
    """
    if isinstance(value, str) and (parameter.kind is bool or True in parameter.choices):
        value = _WORDS.get(value.lower(), value)
    if parameter.choices:
        for choice in parameter.choices:
            if value == choice:
                return choice
        raise ValueError("must be one of " + ", ".join(_show(choice) for choice in parameter.choices))
    if parameter.kind is str:
        return str(value)
    if isinstance(value, str) or not math.isfinite(value):
        raise ValueError(f"must be {_KINDS[parameter.kind]}")
    if (parameter.kind is bool and value not in (0, 1)) or (parameter.kind is int and value != int(value)):
        raise ValueError(f"must be {_KINDS[parameter.kind]}")
    low, high = parameter.minimum, parameter.maximum
    below = low is not None and (value < low or (parameter.open_minimum and value == low))
    if below or (high is not None and value > high):
        raise ValueError(f"must be {_describe_bounds(parameter)}")
    converted: Value = parameter.kind(value)
    return converted


#: Booleans in quotes, as recipes for mergekit may have them.
_WORDS = {
    **dict.fromkeys(("true", "yes", "on", "t", "y", "1"), True),
    **dict.fromkeys(("false", "no", "off", "f", "n", "0"), False),
}
_KINDS = {bool: "true or false", int: "a whole number", float: "a number"}


def _show(value: Scalar) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _describe_bounds(parameter: Parameter) -> str:
    low, high = parameter.minimum, parameter.maximum
    if low is None:
        return f"at most {high:g}"
    if high is None:
        return f"{'above' if parameter.open_minimum else 'at least'} {low:g}"
    return f"in {'(' if parameter.open_minimum else '['}{low:g}, {high:g}]"


def describe_owner(source: Input | None) -> str:
    """Return ' for model "..."', or nothing for a parameter of all models."""
    return f' for model "{source.model}"' if source else ""


def check_settings(config: MergeConfig, method: Method, groups: Sequence[Group], findings: Findings) -> None:
    """Report parameters that the method does not read and values that it cannot take."""
    known = {parameter.name: parameter for parameter in method.parameters}
    for settings, source, is_base in iterate_levels(config, groups):
        owner = describe_owner(source)
        for name, setting in settings.items():
            parameter = known.get(name)
            if parameter is None:
                hint = suggest_name(name, known, f"parameters of {method.name}")
                findings.add(f"{method.name} does not read {name}", setting.where, hint, tolerable=True)
            elif source and not parameter.per_model:
                findings.add(
                    f"{method.name}: {name} is one value for all models, and is not read{owner}",
                    setting.where,
                    "move it to the parameters of the slice or of the recipe",
                    tolerable=True,
                )
            elif source and is_base:
                findings.warn(f"{method.name}: {name} has no effect on the base", setting.where)
            else:
                _check_values(method, parameter, setting, owner, findings)


def iterate_levels(
    config: MergeConfig, groups: Sequence[Group]
) -> Iterator[tuple[Mapping[str, Setting], Input | None, bool]]:
    """Every `parameters:` of a recipe, with the source it belongs to, and if that is the base."""
    yield config.parameters, None, False
    for group in groups:
        yield group.outer, None, False
        yield group.parameters, None, False
        for place, source in enumerate(group.sources):
            yield source.parameters, source, place == group.base


def _check_values(method: Method, parameter: Parameter, setting: Setting, owner: str, findings: Findings) -> None:
    cases = setting.value.cases if isinstance(setting.value, Cases) else (Case(setting.value, None, setting.where),)
    for case in cases:
        for value in case.value.values if isinstance(case.value, Gradient) else (case.value,):
            try:
                convert_value(parameter, value)
            except ValueError as error:
                findings.add(f"{method.name}: {parameter.name} = {_show(value)}{owner} {error}", case.where)
