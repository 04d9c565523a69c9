"""A method is one short file."""

from __future__ import annotations

from pathlib import Path

import pytest

from pymerge import methods

FOLDER = Path(methods.__file__).parent
#: The contract, the registry.
SHARED = {"__init__", "base"}


@pytest.mark.parametrize("name", methods.method_names())
def test_a_method_takes_80_lines_at_most(name: str) -> None:
    assert len((FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 80


def test_every_file_is_a_method_or_shared() -> None:
    files = {path.stem for path in FOLDER.glob("*.py") if not path.name.startswith("_")}
    assert files - SHARED == set(methods.method_names())
