"""What verifying an output folder gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias

from pymerge.errors import printable

__all__ = [
    "Accuracy",
    "Check",
    "Finding",
    "OnStep",
    "Recomputed",
    "Status",
    "Verification",
    "join_names",
]


#: Told what is done next.
OnStep: TypeAlias = Callable[[str], None]


class Status(str, Enum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    #: Nothing wrong was found, but not all that was asked for could be looked at.
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, or that could not be checked; where it can be told, of which file and tensor."""

    message: str
    file: str | None = None
    tensor: str | None = None

    def __post_init__(self) -> None:
        # Names in damaged files may be anything: no characters that steer a terminal, or cannot be written.
        for name in ("message", "file", "tensor"):
            text = getattr(self, name)
            object.__setattr__(self, name, text and printable(text))

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.tensor, self.message) if part)


@dataclass(frozen=True, slots=True)
class Check:
    """One of the things that are looked at.

    Attributes:
        summary: what was looked at, or why it was not, in a few words.
        wrong: what makes the check fail.
        unchecked: what could not be looked at, and why.
    """

    name: str
    summary: str
    wrong: tuple[Finding, ...] = ()
    unchecked: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "summary", printable(self.summary))

    @property
    def status(self) -> Status:
        """Failed if anything is wrong, else incomplete if anything could not be looked at."""
        return Status.FAILED if self.wrong else Status.INCOMPLETE if self.unchecked else Status.PASSED

    @classmethod
    def skip(cls, name: str, why: str) -> Check:
        """A check that could not be made at all."""
        return cls(name, f"not checked: {why}", unchecked=(Finding(why),))


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How far stored values are from an evaluation of the method in float64, where both are finite.

    Units are those in the last place that the stored type has at the largest of an element's inputs and
    result, as in docs/numerics.md.

    Attributes:
        otherwise: elements more than a unit off of which rounding changed a decision: what is trimmed, whose
            sign wins, what reaches a threshold.
        largest, rms: units; of all other elements.
        within: share of all elements that are at most one unit off.
        rounded: share of all elements that are the evaluation's result, rounded once.
    """

    otherwise: int
    largest: float
    rms: float
    within: float
    rounded: float


@dataclass(frozen=True, slots=True)
class Recomputed:
    """One tensor, made again from the inputs.

    Attributes:
        differing: elements that are not the reference's, bit by bit; `first` is the least flat index of one.
        accuracy: None where a tensor was only copied or nothing of it is finite.
    """

    name: str
    dtype: str
    count: int
    differing: int
    first: int | None = None
    accuracy: Accuracy | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """Everything that was found out about an output folder."""

    folder: Path
    checks: tuple[Check, ...]
    recomputed: tuple[Recomputed, ...] = ()

    @property
    def status(self) -> Status:
        """That of the worst check."""
        found = {check.status for check in self.checks}
        return next((s for s in (Status.FAILED, Status.INCOMPLETE) if s in found), Status.PASSED)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "folder": str(self.folder),
            "status": self.status.value,
            "checks": [{**asdict(check), "status": check.status.value} for check in self.checks],
            "recomputed": [asdict(tensor) for tensor in self.recomputed],
        }


def join_names(names: Sequence[str], most: int = 3) -> str:
    """The first few of many names."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
