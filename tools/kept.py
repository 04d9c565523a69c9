"""Figures of compiled code that a gate keeps in a file, by what compiled it, and how new ones compare."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any, Protocol, TypeVar

__all__ = ["Figures", "compare", "keep", "load"]


class Figures(Protocol):
    """A dataclass of numbers."""

    def worse_than(self, kept: Any) -> str:
        """What is worse, in words; empty if nothing is."""
        ...


_F = TypeVar("_F", bound=Figures)


def load(path: Path, make: Callable[..., _F]) -> dict[str, Mapping[str, _F]]:
    """What is kept, by key; nothing if there is no file."""
    if not path.exists():
        return {}
    kept = json.loads(path.read_text(encoding="ascii"))
    return {name: {case: make(*numbers) for case, numbers in figures.items()} for name, figures in kept.items()}


def keep(path: Path, kept: Mapping[str, Mapping[str, Any]]) -> None:
    """Write what is to be kept, by key; one line each, so that a change reads well."""
    blocks = []
    for name, figures in sorted(kept.items()):
        lines = [f"    {json.dumps(case)}: {json.dumps(astuple(each))}" for case, each in sorted(figures.items())]
        blocks.append(f"  {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n  }")
    path.write_text("{\n" + ",\n".join(blocks) + "\n}\n", encoding="ascii")


def compare(made: Mapping[str, _F], kept: Mapping[str, _F]) -> list[str]:
    """What fails the gate, a line each."""
    failures = [f"{case}: nothing is kept" for case in made if case not in kept]
    failures += [f"{case}: kept, but nothing compiles it any more" for case in kept if case not in made]
    for case, figures in made.items():
        if case in kept and (worse := figures.worse_than(kept[case])):
            failures.append(f"{case}: {worse}")
    return failures
