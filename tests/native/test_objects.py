"""Nothing that was compiled with raised flags can run on a machine that lacks them."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from pymerge import _core

ROOT = Path(__file__).resolve().parent.parent.parent
RAISED = ("v2", "v3", "v4")
#: Weak, unique-global and common symbols: the linker keeps one copy of each, perhaps the raised one.
SHARED = set("wWvVuC")


def find_objects(level: str) -> list[Path]:
    """The kernels' objects of one level, of the build that this interpreter's editable install left."""
    if level not in dict(_core.isa_levels()):
        pytest.skip("needs x86-64")
    if shutil.which("nm") is None:
        pytest.skip("needs nm")
    tag = f"cp{sysconfig.get_python_version().replace('.', '')}-*"
    found = [path for tree in ROOT.glob(f"build/{tag}") for path in tree.glob(f"CMakeFiles/kernels_{level}.dir/**/*.o")]
    if not found:
        pytest.skip("needs a build tree")
    return found


def list_symbols(file: Path) -> list[tuple[str, str]]:
    """(type letter, name) of every symbol."""
    text = subprocess.run(["nm", "-C", str(file)], capture_output=True, text=True, check=True).stdout
    return [(parts[-2], parts[-1]) for line in text.splitlines() if len(parts := line.split(maxsplit=2)) >= 2]


@pytest.mark.parametrize("level", RAISED)
def test_raised_objects_share_no_function(level: str) -> None:
    for file in find_objects(level):
        shared = [symbol for symbol in list_symbols(file) if symbol[0] in SHARED]
        assert not shared, file


@pytest.mark.parametrize("level", ["generic", *RAISED])
def test_an_object_exports_nothing_but_its_kernel(level: str) -> None:
    for file in find_objects(level):
        kernel = file.parent.name
        exported = [name for kind, name in list_symbols(file) if kind in "TDRB"]
        assert exported == [f"pymerge::{kernel}_{level}"], file


def test_no_code_runs_when_the_module_is_loaded() -> None:
    # A constructor of a static object would run before any check of the processor.
    for level in RAISED:
        for file in find_objects(level):
            sections = subprocess.run(["nm", "-C", str(file)], capture_output=True, text=True, check=True).stdout
            assert "_GLOBAL__sub_I" not in sections, file
