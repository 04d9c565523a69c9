"""The merge methods: one file each, found by looking into this folder.

A module whose name has no leading underscore and that defines `METHOD` is a method. Nothing else
in the tree lists them.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from pymerge.methods.base import Method

__all__ = ["get_method", "method_names"]

_NOT_METHODS = {"base"}


@cache
def _registry() -> dict[str, Method]:
    methods: dict[str, Method] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith("_") or module.name in _NOT_METHODS:
            continue
        method: Method = importlib.import_module(f"{__name__}.{module.name}").METHOD
        methods[method.name] = method
    return methods


def method_names() -> tuple[str, ...]:
    """Names of all methods, sorted."""
    return tuple(sorted(_registry()))


def get_method(name: str) -> Method:
    """Return the method called `name`.

    Raises:
        KeyError: there is none.
    """
    return _registry()[name]
