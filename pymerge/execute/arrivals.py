"""Inputs that are still on their way when a merge begins: their tasks wait, all others do not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from pymerge.execute.restore import Kept
from pymerge.plan.missing import list_files, list_missing
from pymerge.schedule.values import Schedule

__all__ = ["Arrivals", "Gate"]


class Arrivals(Protocol):
    """Brings files.

    Attributes:
        fetched, total: bytes that came, and of all that were asked for.
    """

    @property
    def fetched(self) -> int: ...
    @property
    def total(self) -> int: ...

    def expect(self, paths: Sequence[str]) -> None:
        """Begin to bring files, in this order; called once."""
        ...

    def ready(self, paths: Iterable[str]) -> bool:
        """Whether files have come; raises if one of all that were asked for cannot."""
        ...

    def close(self) -> None:
        """Bring nothing more. Idempotent."""
        ...


class Gate:
    """Lets tasks begin whose files are here. A merge of files that are all here has none."""

    def __init__(self, schedule: Schedule, arrivals: Arrivals) -> None:
        missing = list_missing(schedule.plan)
        self._schedule = schedule
        self._arrivals = arrivals
        self._needs: dict[int, list[str]] = {}
        for number, task in enumerate(schedule.plan.tasks):
            if needed := [path for path in list_files(task) if path in missing]:
                self._needs[number] = needed

    @property
    def fetched(self) -> tuple[int, int]:
        """Bytes that came, and how many there will be."""
        return self._arrivals.fetched, self._arrivals.total

    def begin(self, kept: Kept) -> None:
        """Have the files brought that tasks need which are not kept, in the order of those."""
        if self._schedule.plan.group_selects:
            # They look at all tensors, those that are kept too.
            order: Iterable[int] = self._needs
        else:
            order = (
                placement.task
                for shard, there in zip(self._schedule.shards, kept.segments, strict=True)
                for at, placement in enumerate(shard.placements, 1)
                if at not in there
            )
        self._arrivals.expect(list(dict.fromkeys(path for number in order for path in self._needs.get(number, ()))))

    def passes(self, number: int) -> bool:
        """Whether a task of the plan can begin; raises if it never will."""
        return self._arrivals.ready(self._needs.get(number, ()))
