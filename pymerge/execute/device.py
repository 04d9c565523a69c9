"""A feeder for backends of devices: a pipeline for each; what does not fit goes to the compiled CPU kernels."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence

from pymerge import _core
from pymerge.checkpoint.values import Source
from pymerge.execute.feeders import StreamFeeder, find_copied, find_packed
from pymerge.execute.lanes import Lane, bytes_needed
from pymerge.execute.pipeline import (
    Answer,
    CombineJob,
    Failure,
    MeasureJob,
    Merged,
    Outcome,
    Pipeline,
)
from pymerge.ops import Combine, Measure
from pymerge.plan.values import Staged, TensorTask
from pymerge.schedule.values import Schedule

__all__ = ["DeviceFeeder"]

#: Bytes of inputs under measure, for each device: 20 ms of copying them in at 50 GB/s. What they become may all have to
#: wait for the disk.
_AHEAD = 1 << 30


class DeviceFeeder:
    """Shares tasks out to devices by bytes; the engine only writes, and does what no device has room for."""

    def __init__(
        self,
        engine: _core.Engine,
        lanes: Sequence[Lane],
        loaders: int,
        schedule: Schedule,
        before: Callable[[], None] | None = None,
    ) -> None:
        """Start a pipeline for each lane.

        Args:
            loaders: threads that read for each device.
            schedule: of the merge.
            before: what to wait for before the first kernel.
        """
        self._engine = engine
        self._stream = StreamFeeder(engine, schedule.resources.in_place)
        self._schedule = schedule
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._rooms = [lane.room for lane in lanes]
        self._pipelines = [Pipeline(lane, self._outcomes.put, loaders, before, self._stream.reader) for lane in lanes]
        self._given = [0] * len(lanes)
        self._chosen: dict[int, int] = {}
        self._on_host: set[int] = set()

    @property
    def ahead(self) -> int:
        """See `Feeder`."""
        return max(StreamFeeder.ahead, min(sum(self._rooms), _AHEAD * len(self._rooms)))

    @property
    def no_room(self) -> int:
        """See `Feeder`."""
        return len(self._on_host)

    def tensor(self, source: Source) -> _core.Tensor:
        """See `Feeder`."""
        return self._stream.tensor(source)

    def _choose(self, task: TensorTask) -> int | None:
        """The device for a task, always the same one; None if none has room for it."""
        need = bytes_needed(task)
        if id(task) not in self._chosen:
            able = [i for i, room in enumerate(self._rooms) if need <= room]
            if not able:
                self._on_host.add(id(task))
                return None
            chosen = min(able, key=lambda i: (self._given[i] / max(self._rooms[i], 1), i))
            self._given[chosen] += need
            self._chosen[id(task)] = chosen
        return self._chosen[id(task)]

    def _edges(self, shard: int, segment: int) -> tuple[int, int]:
        where, block = self._schedule.shards[shard].placements[segment - 1], self._schedule.resources.block
        return -where.offset % block, (where.offset + where.nbytes) % block

    def stage(self, source: Staged, request: Combine) -> None:
        """Have the CPU's kernels make a source; see `Feeder`."""
        self._stream.stage(source, request)

    def measure(self, ticket: int, task: TensorTask, request: Measure, *, staged: bool = False) -> None:
        """Start a measure; see `Feeder`. Stages are the CPU's."""
        chosen = None if staged else self._choose(task)
        if chosen is None:
            self._stream.measure(ticket, task, request)
        else:
            self._pipelines[chosen].submit(MeasureJob(ticket, task, request))

    def combine(self, shard: int, segment: int, task: TensorTask, request: Combine) -> None:
        """Start a combine; see `Feeder`."""
        is_copy = find_copied(task, request) is not None or find_packed(task) is not None
        chosen = self._chosen.get(id(task)) if is_copy else self._choose(task)
        if is_copy and chosen is not None:
            self._pipelines[chosen].forget(task)
        if is_copy or chosen is None:
            self._stream.combine(shard, segment, task, request)
        else:
            self._pipelines[chosen].submit(CombineJob(shard, segment, task, request, self._edges(shard, segment)))

    def collect(self, seconds: float) -> list[tuple[int, object]]:
        """Wait for answers; see `Feeder`."""
        answers: list[tuple[int, object]] = []
        wait = seconds
        while True:
            try:
                outcome = self._outcomes.get(timeout=wait) if wait else self._outcomes.get_nowait()
            except queue.Empty:
                break
            wait = 0.0
            self._take(outcome, answers)
        return answers + self._stream.collect(0.0)

    def _take(self, outcome: Outcome, answers: list[tuple[int, object]]) -> None:
        if isinstance(outcome, Failure):
            raise outcome.error
        if isinstance(outcome, Answer):
            answers.append((outcome.ticket, outcome.answer))
            return
        job = outcome.job
        if isinstance(outcome, Merged):
            self._stream.let_go(job.task)
            self._engine.fill_made(outcome.job.shard, outcome.job.segment, outcome.made, job.task.dtype.code)
            return
        self._on_host.add(id(job.task))
        if isinstance(job, CombineJob):
            self._stream.combine(job.shard, job.segment, job.task, job.request)
        else:
            self._stream.measure(job.ticket, job.task, job.request)

    def take_nonfinite(self) -> list[tuple[int, int, int]]:
        """What was found; see `Feeder`."""
        return self._stream.take_nonfinite()

    def locate_nonfinite(self, shard: int, segment: int) -> int:
        """See `Feeder`."""
        return self._stream.locate_nonfinite(shard, segment)

    def close(self) -> None:
        """End the devices' threads; see `Feeder`."""
        for pipeline in self._pipelines:
            pipeline.close()
