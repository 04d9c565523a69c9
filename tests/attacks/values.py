"""What an attack is: how it is laid out, and the answer that pymerge owes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

__all__ = ["Attack", "Layout"]

#: Changes a good model's folder, or writes a recipe's file, at this path.
Layout: TypeAlias = Callable[[Path], object]


@dataclass(frozen=True)
class Attack:
    """A model or a recipe of a stranger.

    Attributes:
        layout: makes it.
        exit: the exit code that `pymerge merge` owes it; 0 where it is only strange.
        says: a part of the message; what comes from the attack is in it as `printable` has it.
        alone: whether it runs in a process of its own, with limits, since what it attacks is time or memory.
    """

    layout: Layout
    exit: int
    says: str = ""
    alone: bool = False
