"""pymerge methods [NAME]."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

import typer

from pymerge.cli import options
from pymerge.cli.console import Format, print_facts, print_json, print_table
from pymerge.errors import RecipeError
from pymerge.methods import get_method, method_names
from pymerge.methods._example import example_recipe
from pymerge.methods.base import REQUIRED, Method, Parameter


def methods(
    name: Annotated[str | None, typer.Argument(help="One method, in full.", metavar="[NAME]")] = None,
    answer: options.answer = Format.HUMAN,
) -> None:
    """List the merge methods, or everything about one."""
    names = method_names()
    if name is not None and name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        advice = f"did you mean {close[0]}?" if close else f"there are: {', '.join(names)}"
        raise RecipeError(f"no merge method is called {name!r}; {advice}")
    chosen = [get_method(each) for each in (names if name is None else (name,))]
    if answer is Format.JSON:
        described = [describe_method(method) for method in chosen]
        print_json(described if name is None else described[0])
    elif answer is Format.QUIET:
        print("\n".join(method.name for method in chosen))
    elif name is None:
        rows = ((each.name, each.title, " ".join(p.name for p in each.parameters)) for each in chosen)
        print_table(("method", "title", "parameters"), rows)
    else:
        _print_method(chosen[0])


def _print_method(method: Method) -> None:
    facts = describe_method(method)
    print_facts({key: facts[key] for key in ("name", "title", "formula", "reference", "base_model", "models")})
    if method.parameters:
        print()
        rows = (
            (each["name"], each["kind"], each["default"], each["allowed"], each["scope"], each["doc"])
            for each in facts["parameters"]
        )
        print_table(("parameter", "type", "default", "allowed", "given", "meaning"), rows)
    print("\nexample")
    print(facts["example"], end="")


def describe_method(method: Method) -> dict[str, Any]:
    """Everything a method declares, as plain values, with an example recipe."""
    most = "any number" if method.maximum is None else str(method.maximum)
    exact = method.maximum == method.minimum
    return {
        "name": method.name,
        "title": method.title,
        "formula": method.formula,
        "reference": method.reference,
        "base_model": method.base.value,
        "models": most if exact else f"{method.minimum} to {most}",
        "parameters": [_describe_parameter(parameter) for parameter in method.parameters],
        "example": example_recipe(method),
    }


def _describe_parameter(parameter: Parameter) -> dict[str, Any]:
    default = "required" if parameter.default is REQUIRED else parameter.default
    return {
        "name": parameter.name,
        "kind": parameter.kind.__name__,
        "default": "unset" if default is None else default,
        "allowed": _describe_range(parameter),
        "scope": "per model" if parameter.per_model else "once",
        "doc": parameter.doc,
    }


def _describe_range(parameter: Parameter) -> str:
    if parameter.kind is bool:
        return "true, false"
    if parameter.choices:
        return ", ".join(str(c).lower() if isinstance(c, bool) else str(c) for c in parameter.choices)
    low, high = parameter.minimum, parameter.maximum
    if low is None and high is None:
        return "any"
    opening = "(" if parameter.open_minimum or low is None else "["
    closing = ")" if high is None else "]"
    return f"{opening}{'-inf' if low is None else low}, {'inf' if high is None else high}{closing}"
