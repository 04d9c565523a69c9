"""The executor: starts programs in the order of the output, resumes each when its measure is done,
hands its combine to the engine, and keeps only as much in flight as keeps the workers busy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymerge import _core
from pymerge.backends import DEVICE_BACKENDS, load_lanes, load_ops, resolve_backend
from pymerge.execute.feeders import Feeder, StreamFeeder
from pymerge.execute.inputs import check_unchanged
from pymerge.execute.nonfinite import nonfinite_error
from pymerge.execute.usage import MemoryWatch, disk_bytes, name_limit
from pymerge.execute.values import ExecutionReport, OnProgress, Progress
from pymerge.ops import Combine, Copy, Cut, Measure, Program, Select
from pymerge.plan.values import TensorTask
from pymerge.schedule.values import Schedule, Shard

__all__ = ["execute"]

#: Output bytes decided but not yet written: enough to keep two dozen workers in 4 MiB blocks.
_AHEAD = 256 << 20
#: Seconds between looks at what was written; a window of `_AHEAD` lasts 0.1 s at 2.5 GB/s.
_POLL = 0.02
_PROGRESS_EVERY = 0.1
#: Tensors whose magnitudes are counted at once, at half a megabyte of counts a model each.
_COUNTED = 8
_WRITERS = 2
#: Threads that read for a device, at most.
_LOADERS = 6
#: Output files open at once, however small they are: far below the usual limit of 1024 descriptors.
_OPEN_SHARDS = 64


@dataclass(slots=True)
class _Flight:
    """A task whose program waits for an answer; `number` is the task's in the plan."""

    shard: int
    segment: int
    number: int
    task: TensorTask
    program: Program
    nbytes: int


def temporary_name(final: str) -> str:
    """The name that an output file has until it is whole and synced."""
    return f".{final}.partial"


class _Execution:
    def __init__(
        self,
        schedule: Schedule,
        folder: Path,
        engine: _core.Engine,
        feeder: Feeder,
        *,
        allow_nonfinite: bool,
        reflink: bool,
    ) -> None:
        self._schedule = schedule
        self._tasks = schedule.plan.tasks
        self._folder = folder
        self._engine = engine
        self._feeder = feeder
        self._allow_nonfinite = allow_nonfinite
        self._reflink = reflink
        self._flights: dict[int, _Flight] = {}
        self._tickets = 0
        self._measuring = 0
        self._decided = 0
        self._where: dict[tuple[int, int], TensorTask] = {}
        self._current = ""
        self._group_cuts: dict[int, tuple[Cut, ...]] = {}
        self.opened = 0
        self.copied = 0
        self.nonfinite: dict[str, int] = {}

    def run(self, report: OnProgress | None, started: float, memory: MemoryWatch) -> None:
        """Drive every task to its last byte."""
        total = sum(shard.size for shard in self._schedule.shards)

        def tell(status: Mapping[str, Any]) -> None:
            memory.sample()
            if report:
                report(Progress(time.monotonic() - started, status["read"], status["written"], total, self._current))

        self._find_group_cuts(lambda: tell(self._engine.status()))
        waiting = self._placements()
        next_report = started
        more = True
        while True:
            status = self._engine.status()
            while more and self._has_room(status["written"], status["shards_finished"]):
                more = self._start_next(waiting)
            for ticket, answer in self._feeder.collect(_POLL):
                self._advance(ticket, answer)
            self._note_nonfinite()
            now = time.monotonic()
            if now >= next_report:
                next_report = now + _PROGRESS_EVERY
                tell(status)
            if not more and not self._flights and status["shards_finished"] == len(self._schedule.shards):
                break
        tell(status)

    def _find_group_cuts(self, tell: Callable[[], None]) -> None:
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
                while waiting and len(running) < _COUNTED:
                    number, request = waiting.pop()
                    self._current = self._tasks[number].name
                    self._feeder.measure(number, self._tasks[number], request)
                    running.add(number)
                for number, answer in self._feeder.collect(_PROGRESS_EVERY):
                    running.remove(number)
                    yield number, answer
                tell()

        self._group_cuts = find_group_cuts(self._tasks, selects, measure)

    def _has_room(self, written: int, finished: int) -> bool:
        return (
            self._measuring < self._feeder.ahead
            and self._decided - written < _AHEAD
            and self.opened - finished < _OPEN_SHARDS
        )

    def _placements(self) -> Iterator[tuple[int, int, int]]:
        """(shard, segment, task) in file order; a shard's file is opened when it is reached."""
        for number, shard in enumerate(self._schedule.shards):
            segments = [(0, len(shard.header)), *((p.offset, p.nbytes) for p in shard.placements)]
            temporary = self._folder / temporary_name(shard.name)
            twins = [
                (at, self._feeder.tensor(placement.twin))
                for at, placement in enumerate(shard.placements, 1)
                if placement.twin is not None and placement.in_step and self._reflink
            ]
            final = str(self._folder / shard.name)
            opened = self._engine.open_shard(str(temporary), final, shard.size, segments, twins)
            assert opened == number
            self.opened += 1
            self._engine.fill_bytes(number, 0, shard.header)
            self._decided += len(shard.header)
            for at, placement in enumerate(shard.placements, 1):
                yield number, at, placement.task

    def _start_next(self, waiting: Iterator[tuple[int, int, int]]) -> bool:
        step = next(waiting, None)
        if step is None:
            return False
        shard, segment, index = step
        task = self._tasks[index]
        self._current = task.name
        self._where[shard, segment] = task
        if task.inputs is None:
            self._combine(shard, segment, task, Copy(0))
            return True
        ticket, self._tickets = self._tickets, self._tickets + 1
        program = self._schedule.plan.method.program(task.inputs)
        nbytes = sum(source.nbytes for source in task.sources)
        self._flights[ticket] = _Flight(shard, segment, index, task, program, nbytes)
        self._measuring += nbytes
        self._advance(ticket, None)
        return True

    def _advance(self, ticket: int, answer: object) -> None:
        flight = self._flights[ticket]
        try:
            request = flight.program.send(answer)
            if isinstance(request, Select) and request.group:
                request = flight.program.send(self._group_cuts[flight.number])
        except StopIteration as stop:
            del self._flights[ticket]
            self._measuring -= flight.nbytes
            self._combine(flight.shard, flight.segment, flight.task, stop.value)
            return
        self._feeder.measure(ticket, flight.task, request)

    def _combine(self, shard: int, segment: int, task: TensorTask, request: Combine) -> None:
        self._decided += task.nbytes
        self.copied += isinstance(request, Copy)
        self._feeder.combine(shard, segment, task, request)

    def _note_nonfinite(self) -> None:
        found = self._feeder.take_nonfinite()
        if found and not self._allow_nonfinite:
            shard, segment, _ = min(found)
            raise nonfinite_error(self._where[shard, segment], self._feeder.locate_nonfinite(shard, segment))
        for shard, segment, count in found:
            name = self._where[shard, segment].name
            self.nonfinite[name] = self.nonfinite.get(name, 0) + count


def _make_feeder(
    backend: str, engine: _core.Engine, schedule: Schedule, devices: Sequence[str], vram: int | None
) -> Feeder:
    resources, plan = schedule.resources, schedule.plan
    if backend == "cpu":
        return StreamFeeder(engine, resources.in_place)
    ops = load_ops(backend)
    if backend not in DEVICE_BACKENDS:
        from pymerge.execute.host import HostFeeder

        return HostFeeder(engine, ops)
    from pymerge.execute.device import DeviceFeeder
    from pymerge.execute.warm import WarmUp

    before = WarmUp(plan.method, plan.tasks, ops).wait if ops.compiles_at_launch else None
    lanes = load_lanes(backend, devices, vram)
    return DeviceFeeder(engine, lanes, min(_LOADERS, resources.threads), resources.in_place, before)


def _remove_output(shards: Sequence[Shard], folder: Path) -> None:
    for shard in shards:
        # While the temporary file is there, the final name can only be an older merge's.
        temporary = folder / temporary_name(shard.name)
        (temporary if temporary.exists() else folder / shard.name).unlink(missing_ok=True)


def execute(
    schedule: Schedule,
    folder: Path,
    *,
    backend: str = "auto",
    devices: Sequence[str] = (),
    vram: int | None = None,
    allow_nonfinite: bool = False,
    reflink: bool = True,
    on_progress: OnProgress | None = None,
) -> ExecutionReport:
    """Write every shard of a schedule into `folder`.

    Shards appear under their final names only when whole and synced; on any failure what was
    written is removed again.

    Args:
        devices: for a backend of devices, such as "cuda:0"; they share the tensors. None: the current one.
        vram: bytes of each device that may be used; None takes most of what is free.

    Raises:
        NonFiniteError: a merged value is not finite (unless `allow_nonfinite`).
        DTypeError: integer tensors disagree between the models.
        FormatError: an input changed or cannot be read.
        ResourceError: the disk or memory ran out.
        BackendError: the backend was asked for by name and cannot run.
    """
    name = resolve_backend(backend)
    resources = schedule.resources
    started = time.monotonic()
    cpu, disk = time.process_time(), disk_bytes()
    memory = MemoryWatch()
    engine = _core.Engine(
        threads=resources.threads,
        block=resources.block,
        buffers=resources.buffers,
        writers=_WRITERS,
        direct=True,
        stop_on_nonfinite=not allow_nonfinite,
        gathered=resources.gathered,
        masks=resources.masks,
    )
    feeder = _make_feeder(name, engine, schedule, devices, vram)
    execution = _Execution(schedule, folder, engine, feeder, allow_nonfinite=allow_nonfinite, reflink=reflink)
    try:
        check_unchanged(schedule.plan.models)
        execution.run(on_progress, started, memory)
        engine.stop()
        check_unchanged(schedule.plan.models)
        _core.sync_folder(str(folder))
        feeder.close()
    except BaseException:
        engine.stop()
        feeder.close()
        _remove_output(schedule.shards[: execution.opened], folder)
        raise
    memory.sample()
    status = engine.status()
    seconds = time.monotonic() - started
    return ExecutionReport(
        seconds=seconds,
        cpu_seconds=time.process_time() - cpu,
        read=status["read"],
        written=status["written"] - status["shared"],
        copied=execution.copied,
        shared=status["shared"],
        peak_anonymous=memory.anonymous,
        peak_resident=memory.resident,
        measure_seconds=status["measure_seconds"],
        fill_seconds=status["fill_seconds"],
        limit=name_limit(
            status["measure_seconds"] + status["fill_seconds"],
            status["cpu_seconds"],
            seconds * resources.threads,
            (disk_bytes() - disk) / max(1, status["read"]),
        ),
        direct=status["direct"],
        nonfinite=execution.nonfinite,
    )
