"""Tensors through a device: read, copied in, measured, combined and copied out, all at the same time.

Threads of a pipeline: some load sources, one runs kernels, one waits for combines. A task comes aboard when there
is room for its sources and its output together, in the order in which tasks were started. Its sources stay until its
combine is done, so that they are copied in once; its output stays until it was read, piece by piece, by those who
write it: the host holds no tensor. Nothing here knows what a device is: see `Lane`.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
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
    "Made",
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

    def wait(self, made: Any) -> None:
        """Return when a combine is done."""
        ...

    def copy_out(self, made: Any, begin: int, out: Any) -> None:
        """Copy bytes of what a combine made, from a place on, into a buffer; called by several threads."""
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
    """A task's combine, of a segment of a shard.

    Attributes:
        edges: bytes at its begin and its end that share a block of the output with other segments.
    """

    shard: int
    segment: int
    task: TensorTask
    request: Combine
    edges: tuple[int, int]
    is_last: ClassVar[bool] = True


Job: TypeAlias = MeasureJob | CombineJob


@dataclass(frozen=True, slots=True)
class Answer:
    """A measure's."""

    ticket: int
    answer: object


class Made:
    """What a combine made: on the device until it was read once, but for its edges.

    These are copied out at once. They share blocks of the output with other tensors and are not read before those are
    made; what is between them waits for nothing but the writer.
    """

    def __init__(self, lane: Lane, made: Any, nbytes: int, edges: tuple[int, int], let_go: Callable[[], None]) -> None:
        """`let_go`: called when nothing is on the device any more."""
        self._lane = lane
        self._made = made
        self._lock = Lock()
        self._let_go = let_go
        head, tail = edges if sum(edges) < nbytes else (nbytes, 0)
        self._inner = (head, nbytes - tail)
        self._left = nbytes - head - tail
        self._edges = [(begin, bytearray(size)) for begin, size in ((0, head), (nbytes - tail, tail)) if size]
        for begin, data in self._edges:
            lane.copy_out(made, begin, memoryview(data))
        if not self._left:
            self._go()

    def read(self, begin: int, out: Any, once: bool) -> None:
        """Copy bytes from `begin` on into a buffer; see `Engine.fill_made`."""
        end = begin + len(out)
        for first, data in self._edges:
            low, high = max(begin, first), min(end, first + len(data))
            if low < high:
                out[low - begin : high - begin] = memoryview(data)[low - first : high - first]
        low, high = max(begin, self._inner[0]), min(end, self._inner[1])
        if low >= high:
            return
        made, part = self._made, out[low - begin : high - begin]
        if made is None and not once:
            part[:] = bytes(high - low)
            return
        self._lane.copy_out(made, low, part)
        if once:
            with self._lock:
                self._left -= high - low
                is_last = self._left == 0
            if is_last:
                self._go()

    def _go(self) -> None:
        self._made = None
        self._let_go()


@dataclass(frozen=True, slots=True)
class Merged:
    """A combine is done."""

    job: CombineJob
    made: Made


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
    """A task on its way.

    Attributes:
        need: bytes that it comes aboard with, and `held`, those that it still has there.
        refused: there was less room than it was thought.
        loading: sources that are not there yet.
    """

    task: TensorTask
    need: int
    held: int = 0
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
        """Let a task go that will not be combined here, or whose output was read."""
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
                    combine = self._lane.combine
                    self._made.put((stay, job, combine(job.request, operands, task.compute, task.dtype, task.count)))
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
            self._lane.wait(made)
            with self._lock:
                stay.operands.clear()
                self._hold(stay, stay.task.nbytes)
                self._admit()
            result = Made(self._lane, made, stay.task.nbytes, job.edges, partial(self.forget, stay.task))
            # Its memory goes when the last part of it is read.
            del item, made
            self._post(Merged(job, result))

    # With the lock held:

    def _hold(self, stay: _Stay, nbytes: int) -> None:
        self._used += nbytes - stay.held
        stay.held = nbytes

    def _admit(self) -> None:
        while self._waiting and (not self._used or self._used + self._waiting[0].need <= self._room):
            stay = self._waiting.popleft()
            self._hold(stay, stay.need)
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
        self._hold(stay, 0)
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
        self._hold(stay, 0)
        self._admit()
