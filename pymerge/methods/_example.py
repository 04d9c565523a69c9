"""A recipe that shows a method at work, made from its declaration."""

from __future__ import annotations

from pymerge.methods.base import REQUIRED, BaseRule, Method, Parameter, Value

__all__ = ["example_recipe"]

_NAMES = ("one", "two", "three")


def example_recipe(method: Method) -> str:
    """The YAML of a small recipe: every parameter of the method, at its default where it has one.

    Models are models/base, models/one, models/two; what a parameter must be given is 0.5.
    """
    most = method.maximum if method.maximum is not None else 2
    each = [parameter for parameter in method.parameters if parameter.per_model and _value(parameter) is not None]
    once = [parameter for parameter in method.parameters if not parameter.per_model and _value(parameter) is not None]
    lines = [f"merge_method: {method.name}"]
    if method.base is BaseRule.REQUIRED:
        lines.append("base_model: models/base")
    lines.append("models:")
    for name in _NAMES[: max(method.minimum, min(2, most))]:
        lines.append(f"  - model: models/{name}")
        if each:
            lines.append(f"    parameters: {{{', '.join(map(_entry, each))}}}")
    if once:
        lines.append("parameters:")
        lines.extend(f"  {_entry(parameter)}" for parameter in once)
    return "\n".join([*lines, "dtype: bfloat16"]) + "\n"


def _value(parameter: Parameter) -> Value | None:
    if parameter.default is REQUIRED:
        return 0.5
    assert parameter.default is None or isinstance(parameter.default, (bool, int, float, str))
    return parameter.default


def _entry(parameter: Parameter) -> str:
    value = _value(parameter)
    # YAML's floats need a point where they have an exponent.
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    shown = shown.replace("e", ".0e") if isinstance(value, float) and "." not in shown else shown
    return f"{parameter.name}: {shown}"
