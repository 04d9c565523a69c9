"""The stubs of the compiled modules name exactly what is compiled."""

from __future__ import annotations

import ast
import importlib.util
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

import pymerge
from pymerge import _core

FOLDER = Path(pymerge.__file__).parent
EMULATED = Path(__file__).resolve().parent.parent / "build" / "emulated"


def load_cuda() -> ModuleType:
    """The CUDA kernels as they are compiled for this machine's processor, which `make test` needs anyway."""
    file = EMULATED / f"_cuda{sysconfig.get_config_var('EXT_SUFFIX')}"
    spec = importlib.util.spec_from_file_location("emulated._cuda", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["_core", "_cuda"])
def compiled(request: pytest.FixtureRequest) -> tuple[ast.Module, ModuleType]:
    """A stub, and what it is of."""
    stub = ast.parse((FOLDER / f"{request.param}.pyi").read_text())
    return stub, _core if request.param == "_core" else load_cuda()


def list_members(body: list[ast.stmt]) -> set[str]:
    """Public names that statements of a stub define."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    names = {node.name for node in body if isinstance(node, kinds)}
    names |= {node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def list_public(value: object) -> set[str]:
    """Public names of a module or class."""
    return {name for name in dir(value) if not name.startswith("_")}


def test_a_module_has_the_names_of_its_stub(compiled: tuple[ast.Module, ModuleType]) -> None:
    stub, module = compiled
    assert list_members(stub.body) == list_public(module)


def test_every_class_has_the_names_of_its_stub(compiled: tuple[ast.Module, ModuleType]) -> None:
    stub, module = compiled
    for node in stub.body:
        if isinstance(node, ast.ClassDef):
            assert list_members(node.body) == list_public(getattr(module, node.name)), node.name
