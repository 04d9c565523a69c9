"""Tensors through a device: read, copied in, measured, combined and copied out, all at the same time.

Threads of a pipeline: some load sources, one runs kernels, one waits for combines. A task comes aboard when there
is room for its sources and its output together, in the order in which tasks were started. Its sources stay until its
combine is done, so that they are copied in once; its output stays until it was read, piece by piece, by those who
write it: the host holds no tensor. Nothing here knows what a device is: see `Lane`.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from threading import Lock, Thread
from typing import Any, ClassVar, TypeAlias

from pymerge.backends.protocol import NoRoom
from pymerge.checkpoint.values import Source
from pymerge.execute.feeders import SURVEYS
from pymerge.execute.lanes import Lane, Made, bytes_needed
from pymerge.execute.tensors import Read
from pymerge.ops import Combine, Measure
from pymerge.plan.values import TensorTask

__all__ = [
    "Answer",
    "CombineJob",
    "Failure",
    "Job",
    "MeasureJob",
    "Merged",
    "OnHost",
    "Outcome",
    "Pipeline",
]

#: Bytes up to which sources that wait are loaded together. A transfer costs some 20 microseconds to start, in which a
#: bus moves a megabyte.
SMALL = 1 << 20


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


def _nbytes(load: tuple[_Stay, int]) -> int:
    stay, place = load
    return stay.task.sources[place].nbytes


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
        for batch in self._batches():
            wanted = [] if self._closing else [item for item in batch if not item[0].refused]
            operands = self._load(wanted)
            with self._lock:
                for stay, place in batch:
                    stay.operands[place] = operands.get((id(stay), place))
                    stay.loading -= 1
                    if stay.loading == 0:
                        self._settle(stay)

    def _batches(self) -> Iterator[list[tuple[_Stay, int]]]:
        """Sources to load, small ones that wait together."""
        held: list[tuple[_Stay, int] | None] = []
        while (item := held.pop() if held else self._loads.get()) is not None:
            batch = [item]
            left = SMALL - _nbytes(item)
            while left > 0 and not held:
                try:
                    more = self._loads.get_nowait()
                except queue.Empty:
                    break
                if more is None or _nbytes(more) > left:
                    held.append(more)
                else:
                    batch.append(more)
                    left -= _nbytes(more)
            yield batch

    def _load(self, batch: list[tuple[_Stay, int]]) -> dict[tuple[int, int], Any]:
        sources = [stay.task.sources[place] for stay, place in batch]
        try:
            operands = self._lane.load(sources, [self._reader(source) for source in sources]) if batch else []
        except NoRoom:
            if len(batch) > 1:
                return {key: operand for item in batch for key, operand in self._load([item]).items()}
            batch[0][0].refused = True
            return {}
        return {(id(stay), place): operand for (stay, place), operand in zip(batch, operands, strict=True)}

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
