"""The type stub of the compiled module names exactly what is compiled."""

from __future__ import annotations

import ast
from pathlib import Path

import pymerge
from pymerge import _core

STUB = ast.parse((Path(pymerge.__file__).parent / "_core.pyi").read_text())


def list_members(body: list[ast.stmt]) -> set[str]:
    """Public names that statements of a stub define."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name for node in body if isinstance(node, kinds) and not node.name.startswith("_")}


def list_public(value: object) -> set[str]:
    """Public names of a module or class."""
    return {name for name in dir(value) if not name.startswith("_")}


def test_the_module_has_the_names_of_its_stub() -> None:
    assert list_members(STUB.body) == list_public(_core)


def test_every_class_has_the_names_of_its_stub() -> None:
    for node in STUB.body:
        if isinstance(node, ast.ClassDef):
            assert list_members(node.body) == list_public(getattr(_core, node.name)), node.name
