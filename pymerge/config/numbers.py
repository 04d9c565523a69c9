"""Numbers of Python callers, who may have them from numpy, torch or fractions, as a recipe has them."""

from __future__ import annotations

import operator
from numbers import Integral, Real
from typing import Any

from pymerge.config.values import Scalar
from pymerge.errors import RecipeError

__all__ = ["plain_scalar", "whole_number"]


def plain_scalar(value: Any) -> Scalar | None:
    """A number, a boolean or a text as Python's own; None of anything else."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    return None


def whole_number(name: str, value: Any, least: int | None = None) -> int:
    """An argument that counts.

    Raises:
        RecipeError: it is no whole number, or less than `least`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise RecipeError(f"{name} = {value!r} must be a whole number") from None
    if least is not None and number < least:
        raise RecipeError(f"{name} = {number} must be at least {least}")
    return number
