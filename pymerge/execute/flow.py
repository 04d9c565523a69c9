"""The flow of one merge: starts programs in the order of the output, resumes each when its measure is
done, hands its combine to the engine, and keeps only as much in flight as keeps the workers busy.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymerge import _core
from pymerge.execute.arrivals import Gate
from pymerge.execute.checkpoints import Checkpoints
from pymerge.execute.feeders import Feeder, calculated, find_packed
from pymerge.execute.nonfinite import nonfinite_error
from pymerge.execute.programs import Decided, Steps, follow
from pymerge.execute.restore import Kept, temporary_name
from pymerge.execute.usage import MemoryWatch
from pymerge.execute.values import OnProgress, OnShard, Progress
from pymerge.ops import Combine, Copy, Cut, Measure
from pymerge.plan.values import TensorTask
from pymerge.schedule.values import Schedule

__all__ = ["Flow"]

#: Output bytes decided but not yet written: enough to keep two dozen workers in 4 MiB blocks.
_AHEAD = 256 << 20
#: Seconds between looks at what was written; a window of `_AHEAD` lasts 0.1 s at 2.5 GB/s.
_POLL = 0.02
_PROGRESS_EVERY = 0.1
#: Tensors whose magnitudes are counted at once, at half a megabyte of counts a model each.
_COUNTED = 8
#: Output files open at once, however small they are: far below the usual limit of 1024 descriptors.
_OPEN_SHARDS = 64
#: In the place of a task whose inputs are still to come.
_NOT_YET = (-1, -1, -1)


@dataclass(slots=True)
class _Flight:
    """A task whose program waits for an answer."""

    shard: int
    segment: int
    task: TensorTask
    program: Steps
    nbytes: int


class Flow:
    """A merge in progress; `run` sees it through."""

    def __init__(
        self,
        schedule: Schedule,
        folder: Path,
        engine: _core.Engine,
        feeder: Feeder,
        checkpoints: Checkpoints,
        *,
        allow_nonfinite: bool,
        reflink: bool,
        report: OnProgress | None,
        gate: Gate | None = None,
        on_shard: OnShard | None = None,
    ) -> None:
        self._schedule = schedule
        self._tasks = schedule.plan.tasks
        self._folder = folder
        self._engine = engine
        self._feeder = feeder
        self._allow_nonfinite = allow_nonfinite
        self._reflink = reflink
        self._report = report
        self._gate = gate
        self._on_shard = on_shard
        self._told: set[int] = set()
        self._started = self._next_report = time.monotonic()
        self._total = sum(shard.size for shard in schedule.shards)
        self._flights: dict[int, _Flight] = {}
        self._tickets = 0
        self._measuring = 0
        self._decided = 0
        self._where: dict[tuple[int, int], TensorTask] = {}
        self._current = ""
        self._group_cuts: dict[int, tuple[Cut, ...]] = {}
        self.memory = MemoryWatch()
        self._checkpoints = checkpoints
        self.opened = 0
        self.copied = 0
        self.nonfinite: dict[str, int] = {}

    def tell(self, tensor: str) -> None:
        """Report progress, if it is time again, with the tensor that is looked at."""
        self._current = tensor
        if time.monotonic() >= self._next_report:
            self._tell()

    def _tell(self) -> None:
        self.memory.sample()
        now = time.monotonic()
        self._next_report = now + _PROGRESS_EVERY
        if self._report:
            status = self._engine.status()
            done = status["written"]
            fetched = self._gate.fetched if self._gate else (0, 0)
            self._report(Progress(now - self._started, status["read"], done, self._total, self._current, *fetched))

    def run(self, kept: Kept) -> None:
        """Drive every task to its last byte, but for those of which the bytes are kept."""
        if self._gate:
            self._gate.begin(kept)
        self._find_group_cuts()
        waiting = self._placements(kept)
        more = True
        while True:
            status = self._engine.status()
            while more and self._has_room(status["written"], status["shards_finished"]):
                step = next(waiting, None)
                more = step is not None
                if step is None or step is _NOT_YET:
                    break
                self._start(*step)
            for ticket, answer in self._feeder.collect(_POLL):
                self._advance(ticket, answer)
            self._note_nonfinite()
            self._checkpoints.check()
            self._tell_shards(status["shards_finished"])
            self.tell(self._current)
            if not more and not self._flights and status["shards_finished"] == len(self._schedule.shards):
                break
        self._checkpoints.end()
        self._checkpoints.collect()
        self._tell()

    def _tell_shards(self, finished: int) -> None:
        """Tell which shards have their final names by now."""
        if self._on_shard is None or finished == len(self._told):
            return
        for number, shard in enumerate(self._schedule.shards[: self.opened]):
            if number not in self._told and not (self._folder / temporary_name(shard.name)).exists():
                self._told.add(number)
                self._on_shard(self._folder / shard.name)

    def _find_group_cuts(self) -> None:
        """Answer the selects of groups, which look at many tensors, before any tensor is merged."""
        selects = self._schedule.plan.group_selects
        if not selects:
            return
        # Loads numpy, which most merges do without.
        from pymerge.execute.groups import find_group_cuts

        def measure(requests: Mapping[int, Measure]) -> Iterator[tuple[int, Any]]:
            waiting = list(requests.items())[::-1]
            running: set[int] = set()
            while waiting or running:
                while waiting and len(running) < _COUNTED and self._passes(waiting[-1][0]):
                    number, request = waiting.pop()
                    self.tell(self._tasks[number].name)
                    self._feeder.measure(number, self._tasks[number], request)
                    running.add(number)
                for number, answer in self._feeder.collect(_PROGRESS_EVERY):
                    running.remove(number)
                    yield number, answer
                self.tell(self._current)

        self._group_cuts = find_group_cuts(self._tasks, selects, measure)

    def _passes(self, number: int) -> bool:
        """Whether a task's inputs are here."""
        return self._gate is None or self._gate.passes(number)

    def _has_room(self, written: int, finished: int) -> bool:
        return (
            self._measuring < self._feeder.ahead
            and self._decided - written < _AHEAD
            and self.opened - finished < _OPEN_SHARDS
        )

    def _placements(self, kept: Kept) -> Iterator[tuple[int, int, int]]:
        """(shard, segment, task) in file order, or that it is too early for the next one; a shard's file is opened when
        it is reached.
        """
        for number, (shard, there) in enumerate(zip(self._schedule.shards, kept.segments, strict=True)):
            segments = [(0, len(shard.header)), *((p.offset, p.nbytes) for p in shard.placements)]
            temporary = self._folder / temporary_name(shard.name)
            skipped = set(there)
            twins = [
                (at, self._feeder.tensor(placement.twin))
                for at, placement in enumerate(shard.placements, 1)
                if placement.twin is not None
                and placement.in_step
                and self._reflink
                and at not in skipped
                # What comes later is copied: opening waits for nothing.
                and self._passes(placement.task)
            ]
            final = str(self._folder / shard.name)
            opened = self._engine.open_shard(str(temporary), final, segments, twins, there)
            assert opened == number
            self.opened += 1
            self._engine.fill_bytes(number, 0, shard.header)
            self._decided += len(shard.header) + sum(segments[at][1] for at in there)
            for at, placement in enumerate(shard.placements, 1):
                if at not in skipped:
                    while not self._passes(placement.task):
                        yield _NOT_YET
                    yield number, at, placement.task

    def _start(self, shard: int, segment: int, index: int) -> None:
        task = self._tasks[index]
        self._current = task.name
        self._where[shard, segment] = task
        ticket, self._tickets = self._tickets, self._tickets + 1
        program = follow(self._schedule.plan.method, task, self._group_cuts.get(index))
        nbytes = sum(source.nbytes for source in task.sources)
        self._flights[ticket] = _Flight(shard, segment, task, program, nbytes)
        self._measuring += nbytes
        self._advance(ticket, None)

    def _advance(self, ticket: int, answer: object) -> None:
        flight = self._flights[ticket]
        try:
            step = flight.program.send(answer)
            while isinstance(step, Decided):
                self._feeder.stage(step.source, step.combine)
                step = flight.program.send(None)
        except StopIteration as stop:
            del self._flights[ticket]
            self._measuring -= flight.nbytes
            self._combine(flight.shard, flight.segment, flight.task, stop.value)
            return
        self._feeder.measure(ticket, step.task, step.request, staged=step.staged)

    def _combine(self, shard: int, segment: int, task: TensorTask, request: Combine) -> None:
        self._decided += task.nbytes
        self.copied += isinstance(request, Copy) and find_packed(task) is None
        self._feeder.combine(shard, segment, task, calculated(task, request))

    def _note_nonfinite(self) -> None:
        found = self._feeder.take_nonfinite()
        if found and not self._allow_nonfinite:
            shard, segment, _ = min(found)
            raise nonfinite_error(self._where[shard, segment], self._feeder.locate_nonfinite(shard, segment))
        for shard, segment, count in found:
            name = self._where[shard, segment].name
            self.nonfinite[name] = self.nonfinite.get(name, 0) + count
