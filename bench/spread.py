"""Repeated timings as five numbers: a median never goes without its spread."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

__all__ = ["Spread"]


@dataclass(frozen=True, slots=True)
class Spread:
    """Repeated measurements of one thing, in its unit; less is better.

    Attributes:
        low, high: first and third quartile.
    """

    median: float
    best: float
    low: float
    high: float
    worst: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarize one or more measurements; quartiles are linear between neighbors."""
        low, median, high = (
            statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
        )
        return cls(median, min(values), low, high, max(values))

    def over(self, unit: float) -> Spread:
        """The same in multiples of `unit`."""
        return Spread(*(value / unit for value in asdict(self).values()))

    def to_json(self) -> dict[str, float]:
        """As plain values."""
        return asdict(self)

    def show(self, digits: int = 2) -> str:
        """Median (best..worst)."""
        return f"{self.median:.{digits}f} ({self.best:.{digits}f}..{self.worst:.{digits}f})"
