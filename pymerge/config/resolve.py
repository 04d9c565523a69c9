"""The value of a parameter for one tensor: precedence of levels, filters, gradients over layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pymerge.config.values import Case, Cases, Gradient, Scalar, Setting
from pymerge.errors import Location

__all__ = ["evaluate_gradient", "resolve"]


def resolve(
    levels: Sequence[Mapping[str, Setting]],
    parameter: str,
    tensor_name: str,
    t: float,
    matched: set[Case] | None = None,
    *,
    selected: bool = False,
) -> tuple[Scalar, Location | None] | None:
    """Find what a recipe says about `parameter` for one tensor.

    Args:
        levels: settings from the most to the least specific (source, slice, recipe).
        parameter: its name.
        tensor_name: the name that filters are tested against.
        t: position within the slice, 0 to 1, for gradients.
        matched: if given, every case that decided is added to it.
        selected: a gradient's values cannot be mixed.

    Returns:
        The value and where it is written, or None if no level decides: a conditional list in which
        nothing matches leaves the question to the next level.
    """
    for level in levels:
        setting = level.get(parameter)
        if setting is None:
            continue
        value = setting.value
        if not isinstance(value, Cases):
            return _evaluate(value, t, selected), setting.where
        for case in value.cases:
            if case.filter is None or case.filter == "*" or case.filter in tensor_name:
                if matched is not None:
                    matched.add(case)
                return _evaluate(case.value, t, selected), case.where or setting.where
    return None


def _evaluate(value: Scalar | Gradient, t: float, selected: bool) -> Scalar:
    return evaluate_gradient(value.values, t, selected=selected) if isinstance(value, Gradient) else value


def evaluate_gradient(values: Sequence[Scalar], t: float, *, selected: bool = False) -> Scalar:
    """Interpolate numbers linearly over [0, 1]; texts, pure booleans and what is `selected` go by index."""
    position = t * (len(values) - 1)
    lower = int(position)
    numbers = [float(value) for value in values if not isinstance(value, str)]
    if selected or len(numbers) < len(values) or all(isinstance(value, bool) for value in values):
        return values[lower]
    upper = min(len(values) - 1, lower + 1)
    fraction = position - lower
    return (1.0 - fraction) * numbers[lower] + fraction * numbers[upper]
