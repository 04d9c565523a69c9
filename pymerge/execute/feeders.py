"""How a task's requests reach a backend: streamed through the compiled engine, or whole in memory."""

from __future__ import annotations

from typing import Protocol

from pymerge import _core
from pymerge.backends.answers import answer_of
from pymerge.backends.calls import Call, call_of
from pymerge.checkpoint.values import StoredTensor
from pymerge.ops import Combine, Copy, Measure
from pymerge.plan.values import TensorTask

__all__ = ["Feeder", "StreamFeeder"]


class Feeder(Protocol):
    """Runs measures and combines of tasks; answers come from `collect`.

    Attributes:
        ahead: bytes of inputs that it is worth having under measure.
    """

    @property
    def ahead(self) -> int: ...

    def tensor(self, stored: StoredTensor) -> _core.Tensor:
        """The stored tensor as the core sees it."""
        ...

    def measure(self, ticket: int, task: TensorTask, request: Measure) -> None:
        """Start a measure; its answer will carry `ticket`."""
        ...

    def combine(self, shard: int, segment: int, task: TensorTask, request: Combine) -> None:
        """Fill an output segment as `request` says."""
        ...

    def collect(self, seconds: float) -> list[tuple[int, object]]:
        """Wait up to `seconds` for answers (or output progress); raises what a worker raised."""
        ...

    def take_nonfinite(self) -> list[tuple[int, int, int]]:
        """(shard, segment, count) of non-finite values stored since the last call."""
        ...

    def locate_nonfinite(self, shard: int, segment: int) -> int:
        """Flat index of the first non-finite value that the segment's combine makes."""
        ...

    def close(self) -> None:
        """End what runs beside the engine."""
        ...


class StreamFeeder:
    """The CPU backend over mapped files: tiles in, output blocks out, nothing held whole."""

    #: Enough to keep two dozen workers in 4 MiB blocks, little enough that a tensor is still cached when it is
    #: combined.
    ahead = 256 << 20

    def __init__(self, engine: _core.Engine, in_place: bool = True) -> None:
        """`in_place`: mapped pages may be read where they are and stay resident for a moment."""
        self._engine = engine
        self._in_place = in_place
        self._files: dict[str, _core.MappedFile] = {}
        self._calls: dict[int, Call] = {}

    def tensor(self, stored: StoredTensor) -> _core.Tensor:
        """The stored tensor as the core sees it; its file is mapped once."""
        file = self._files.get(stored.path)
        if file is None:
            file = self._files[stored.path] = self._engine.map_file(stored.path, self._in_place)
        return _core.Tensor.from_file(file, stored.offset, stored.count, stored.dtype.code)

    def _inputs(self, task: TensorTask, call: Call) -> tuple[list[_core.Tensor], _core.Tensor | None]:
        base = None if call.base is None else self.tensor(task.sources[call.base])
        return [self.tensor(task.sources[source]) for source in call.sources], base

    def measure(self, ticket: int, task: TensorTask, request: Measure) -> None:
        """Start a measure; see `Feeder`."""
        call = self._calls[ticket] = call_of(request)
        start = getattr(self._engine, f"measure_{call.kernel}")
        start(ticket, *self._inputs(task, call), task.compute.name, *call.arguments)

    def combine(self, shard: int, segment: int, task: TensorTask, request: Combine) -> None:
        """Fill an output segment; see `Feeder`."""
        if isinstance(request, Copy) and task.sources[request.source].dtype == task.dtype:
            if task.must_agree:
                tensors = [self.tensor(source) for source in task.sources]
                self._engine.fill_agreed(shard, segment, tensors, task.name)
            else:
                self._engine.fill_copy(shard, segment, self.tensor(task.sources[request.source]))
            return
        call = call_of(request)
        fill = getattr(self._engine, f"fill_{call.kernel}")
        fill(shard, segment, *self._inputs(task, call), task.compute.name, task.dtype.code, *call.arguments)

    def collect(self, seconds: float) -> list[tuple[int, object]]:
        """Wait for answers; see `Feeder`."""
        return [(ticket, answer_of(self._calls.pop(ticket), raw)) for ticket, raw in self._engine.wait(seconds)]

    def take_nonfinite(self) -> list[tuple[int, int, int]]:
        """What was found; see `Feeder`."""
        found: list[tuple[int, int, int]] = self._engine.take_nonfinite()
        return found

    def locate_nonfinite(self, shard: int, segment: int) -> int:
        """Combine again from the start, up to the first one; see `Feeder`."""
        index: int = self._engine.locate_nonfinite(shard, segment)
        return index

    def close(self) -> None:
        """Nothing runs beside the engine."""
