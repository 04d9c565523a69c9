"""Tensors through a device: read, copied in, measured, combined and copied out, all at the same time.

Threads of a pipeline: some load sources, one runs kernels, one waits for results. A task comes aboard when there
is room for its sources and its output together, in the order in which tasks were started; it stays until its
combine is done, so that its sources are copied in once. Nothing here knows what a device is: see `Lane`.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock, Thread
from typing import Any, ClassVar, Protocol, TypeAlias

from pymerge.backends.protocol import NoRoom
from pymerge.checkpoint.values import Source
from pymerge.dtypes import DType
from pymerge.execute.feeders import SURVEYS
from pymerge.execute.tensors import Read
from pymerge.ops import Combine, Measure
from pymerge.plan.values import TensorTask

__all__ = [
    "Answer",
    "CombineJob",
    "Failure",
    "Job",
    "Lane",
    "MeasureJob",
    "Merged",
    "OnHost",
    "Outcome",
    "Pipeline",
    "bytes_needed",
]


class Lane(Protocol):
    """What a pipeline needs of a device; `load` and those that run kernels may raise NoRoom."""

    @property
    def room(self) -> int:
        """Bytes of sources and outputs that may be aboard."""
        ...

    def load(self, source: Source, read: Read) -> Any:
        """Copy a tensor in, its bytes as `read` gives them; called by several threads, returns as soon as the rest
        happens by itself.
        """
        ...

    def measure(self, request: Measure, operands: list[Any], compute: DType) -> object:
        """Run one measure on what `load` returned; the answer is there on return."""
        ...

    def combine(self, request: Combine, operands: list[Any], compute: DType, dtype: DType, count: int) -> Any:
        """Start one combine."""
        ...

    def finish(self, made: Any) -> Any:
        """Wait for a combine; its bytes, a buffer."""
        ...


@dataclass(frozen=True, slots=True)
class MeasureJob:
    """A task's measure; its answer carries the ticket."""

    ticket: int
    task: TensorTask
    request: Measure

    @property
    def is_last(self) -> bool:
        """Whether the task is then done with its sources for now."""
        return isinstance(self.request, SURVEYS)


@dataclass(frozen=True, slots=True)
class CombineJob:
    """A task's combine, of a segment of a shard."""

    shard: int
    segment: int
    task: TensorTask
    request: Combine
    is_last: ClassVar[bool] = True


Job: TypeAlias = MeasureJob | CombineJob


@dataclass(frozen=True, slots=True)
class Answer:
    """A measure's."""

    ticket: int
    answer: object


@dataclass(frozen=True, slots=True)
class Merged:
    """A combine's bytes."""

    job: CombineJob
    data: Any


@dataclass(frozen=True, slots=True)
class OnHost:
    """A job that found no room on the device, not even alone."""

    job: Job


@dataclass(frozen=True, slots=True)
class Failure:
    """What a thread raised."""

    error: BaseException


Outcome: TypeAlias = Answer | Merged | OnHost | Failure


def bytes_needed(task: TensorTask) -> int:
    """What a task holds on a device: its sources and its output."""
    return sum(source.nbytes for source in task.sources) + task.nbytes


@dataclass(slots=True, eq=False)
class _Stay:
    """A task on its way; `loading`: sources that are not there yet."""

    task: TensorTask
    need: int
    job: Job | None = None
    aboard: bool = False
    refused: bool = False
    on_host: bool = False
    loading: int = 0
    operands: dict[int, Any] = field(default_factory=dict)


class Pipeline:
    """One device's; `post` is given outcomes, from any thread."""

    def __init__(
        self,
        lane: Lane,
        post: Callable[[Outcome], None],
        loaders: int,
        before: Callable[[], None] | None,
        reader: Callable[[Source], Read],
    ) -> None:
        """`before`: called by the thread that runs kernels, before the first; `reader`: how sources are read."""
        self._reader = reader
        self._lane = lane
        self._post = post
        self._before = before
        self._lock = Lock()
        self._room = lane.room
        self._used = 0
        self._stays: dict[int, _Stay] = {}
        self._waiting: deque[_Stay] = deque()
        self._loads: queue.SimpleQueue[tuple[_Stay, int] | None] = queue.SimpleQueue()
        self._jobs: queue.PriorityQueue[tuple[int, int, _Stay | None]] = queue.PriorityQueue()
        self._made: queue.SimpleQueue[tuple[_Stay, CombineJob, Any] | None] = queue.SimpleQueue()
        self._closing = False
        self._number = 0
        self._loaders = loaders
        self._threads = [Thread(target=self._guard, args=(self._load_all,), daemon=True) for _ in range(loaders)]
        self._threads += [
            Thread(target=self._guard, args=(run,), daemon=True) for run in (self._run_all, self._finish_all)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Take a task's next request; its last one has been answered."""
        with self._lock:
            stay = self._stays.get(id(job.task))
            if stay is None:
                stay = self._stays[id(job.task)] = _Stay(job.task, bytes_needed(job.task))
                self._waiting.append(stay)
            stay.job = job
            if stay.on_host:
                self._pass_on(stay)
            elif stay.aboard and stay.loading == 0:
                self._queue(stay)
            self._admit()

    def forget(self, task: TensorTask) -> None:
        """Let a task go that will not be combined here."""
        with self._lock:
            stay = self._stays.get(id(task))
            if stay is not None:
                self._leave(stay)

    def close(self) -> None:
        """End the threads; what they had not begun is dropped."""
        self._closing = True
        self._jobs.put((-1, 0, None))
        for _ in range(self._loaders):
            self._loads.put(None)
        self._made.put(None)
        for thread in self._threads:
            thread.join()

    def _guard(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:
            self._post(Failure(error))

    def _load_all(self) -> None:
        while (item := self._loads.get()) is not None:
            stay, place = item
            try:
                skipped = stay.refused or self._closing
                operand = None if skipped else self._load(stay.task.sources[place])
            except NoRoom:
                stay.refused = True
                operand = None
            with self._lock:
                stay.operands[place] = operand
                stay.loading -= 1
                if stay.loading == 0:
                    self._settle(stay)

    def _load(self, source: Source) -> Any:
        return self._lane.load(source, self._reader(source))

    def _run_all(self) -> None:
        if self._before is not None:
            self._before()
        while (stay := self._jobs.get()[2]) is not None:
            job, task = stay.job, stay.task
            assert job is not None
            operands = [stay.operands[place] for place in range(len(task.sources))]
            try:
                if isinstance(job, CombineJob):
                    made = self._lane.combine(job.request, operands, task.compute, task.dtype, task.count)
                    self._made.put((stay, job, made))
                    continue
                answer = self._lane.measure(job.request, operands, task.compute)
            except NoRoom:
                with self._lock:
                    stay.refused = True
                    self._settle(stay)
                continue
            finally:
                del operands
            with self._lock:
                stay.job = None
                if job.is_last:
                    self._leave(stay)
            self._post(Answer(job.ticket, answer))

    def _finish_all(self) -> None:
        while (item := self._made.get()) is not None:
            stay, job, made = item
            data = self._lane.finish(made)
            with self._lock:
                self._leave(stay)
            self._post(Merged(job, data))

    # With the lock held:

    def _admit(self) -> None:
        while self._waiting and (not self._used or self._used + self._waiting[0].need <= self._room):
            stay = self._waiting.popleft()
            self._used += stay.need
            stay.aboard, stay.refused = True, False
            stay.loading = len(stay.task.sources)
            for place in range(stay.loading):
                self._loads.put((stay, place))

    def _queue(self, stay: _Stay) -> None:
        """Combines first: they make room."""
        assert stay.job is not None
        self._number += 1
        self._jobs.put((0 if isinstance(stay.job, CombineJob) else 1, self._number, stay))

    def _settle(self, stay: _Stay) -> None:
        """What a task does next that has all its sources, or was refused one."""
        if not stay.refused:
            if stay.job is not None:
                self._queue(stay)
            return
        # Less than it was thought to: fewer tasks at a time, or, of the only one, none here.
        stay.operands.clear()
        stay.aboard = False
        self._used -= stay.need
        if self._used:
            self._room = min(self._room, self._used)
            self._waiting.appendleft(stay)
        else:
            stay.on_host = True
            if stay.job is not None:
                self._pass_on(stay)
        self._admit()

    def _pass_on(self, stay: _Stay) -> None:
        job, stay.job = stay.job, None
        assert job is not None
        if job.is_last:
            del self._stays[id(stay.task)]
        self._post(OnHost(job))

    def _leave(self, stay: _Stay) -> None:
        del self._stays[id(stay.task)]
        stay.operands.clear()
        if stay.aboard:
            self._used -= stay.need
        self._admit()
