"""A feeder for backends that work on whole tensors; numpy is loaded only with it."""

from __future__ import annotations

from typing import Any

import numpy as np

from pymerge import _core
from pymerge.backends.protocol import Ops
from pymerge.checkpoint.values import Source
from pymerge.execute.derived import pack_source, read_source
from pymerge.execute.feeders import StreamFeeder, find_copied, find_packed
from pymerge.kernels.common.convert import NUMPY_DTYPES
from pymerge.ops import Combine, Measure
from pymerge.plan.values import Staged, TensorTask

__all__ = ["HostFeeder"]


class _Whole:
    """Merged bytes, all of them in memory until they are written; see `Engine.fill_made`."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def read(self, begin: int, out: Any, once: bool) -> None:
        """Copy bytes from `begin` on."""
        out[:] = self._data[begin : begin + len(out)]


class HostFeeder:
    """Any backend's Ops on whole tensors, one after the other; the engine only writes. For the reference."""

    ahead = StreamFeeder.ahead
    no_room = 0

    def __init__(self, engine: _core.Engine, ops: Ops, allow_nonfinite: bool) -> None:
        self._engine = engine
        self._allow_nonfinite = allow_nonfinite
        self._ops = ops
        self._stream = StreamFeeder(engine)
        self._answers: list[tuple[int, object]] = []
        self._nonfinite: list[tuple[int, int, int]] = []
        self._first: dict[tuple[int, int], int] = {}

    def tensor(self, source: Source) -> _core.Tensor:
        """See `Feeder`."""
        return self._stream.tensor(source)

    def _operands(self, task: TensorTask) -> list[Any]:
        return [read_source(source) for source in task.sources]

    def measure(self, ticket: int, task: TensorTask, request: Measure, *, staged: bool = False) -> None:
        """Run a measure at once; see `Feeder`."""
        self._answers.append((ticket, self._ops.measure(request, self._operands(task), task.compute)))

    def combine(self, shard: int, segment: int, task: TensorTask, request: Combine) -> None:
        """Compute a tensor and hand its bytes to the writer; see `Feeder`."""
        if find_copied(task, request) is not None:
            self._stream.combine(shard, segment, task, request)
            return
        packed = find_packed(task)
        if packed is not None:
            # The engine counts numbers, and these are bytes to it: it would not stop before they are written.
            stored, bad, first = pack_source(packed)
            if bad:
                self._nonfinite.append((shard, segment, bad))
                self._first[shard, segment] = first
            if not bad or self._allow_nonfinite:
                self._engine.fill_bytes(shard, segment, stored)
            return
        out = np.empty(task.count, NUMPY_DTYPES[task.dtype.name])
        self._ops.combine(request, self._operands(task), task.compute, out)
        self._engine.fill_made(shard, segment, _Whole(out.view(np.uint8)), task.dtype.code)

    def stage(self, source: Staged, request: Combine) -> None:
        """Nothing: a staged source is made again when it is read."""

    def collect(self, seconds: float) -> list[tuple[int, object]]:
        """Return what was measured; see `Feeder`."""
        ready, self._answers = self._answers, []
        return ready or list(self._engine.wait(seconds))

    def take_nonfinite(self) -> list[tuple[int, int, int]]:
        """What was found; see `Feeder`."""
        found, self._nonfinite = self._nonfinite, []
        return found + self._stream.take_nonfinite()

    def locate_nonfinite(self, shard: int, segment: int) -> int:
        """See `Feeder`."""
        first = self._first.get((shard, segment))
        return self._stream.locate_nonfinite(shard, segment) if first is None else first

    def close(self) -> None:
        """Nothing runs beside the engine."""
