"""How a task's requests reach a backend: streamed through the compiled engine, or whole in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pymerge import _core
from pymerge.backends.answers import answer_of
from pymerge.backends.calls import Call, call_of
from pymerge.checkpoint.sources import Packed
from pymerge.checkpoint.values import Source, StoredTensor
from pymerge.execute.tensors import Read, Tensors
from pymerge.ops import Combine, Copy, KeyCounts, KeySample, Measure, WeightedSum
from pymerge.plan.values import Staged, TensorTask

__all__ = ["SURVEYS", "Feeder", "StreamFeeder", "calculated", "find_copied", "find_packed"]

#: Measures after which a task does not go on to its combine: those that look at all tensors of a group first.
SURVEYS = (KeySample, KeyCounts)


def find_copied(task: TensorTask, request: Combine) -> StoredTensor | None:
    """The stored tensor whose bytes a task's output has, if its combine says so."""
    if not isinstance(request, Copy):
        return None
    source = task.sources[request.source]
    return source if isinstance(source, StoredTensor) and source.dtype == task.dtype else None


def find_packed(task: TensorTask) -> Packed | None:
    """What a task's output is packed from, if that is how it is stored."""
    source = task.sources[0]
    return source if isinstance(source, Packed) else None


def calculated(task: TensorTask, request: Combine) -> Combine:
    """The combine that kernels run: for a copy of what is derived, or changes its dtype, a sum of one."""
    if isinstance(request, Copy) and find_copied(task, request) is None and find_packed(task) is None:
        return WeightedSum((request.source,), (1.0,))
    return request


class Feeder(Protocol):
    """Runs measures and combines of tasks; answers come from `collect`.

    Attributes:
        ahead: bytes of inputs that it is worth having under measure.
        no_room: tasks that no device had room for, so far.
    """

    @property
    def ahead(self) -> int: ...

    @property
    def no_room(self) -> int: ...

    def tensor(self, source: Source) -> _core.Tensor:
        """The source as the core sees it."""
        ...

    def measure(self, ticket: int, task: TensorTask, request: Measure, *, staged: bool = False) -> None:
        """Start a measure; its answer will carry `ticket`. `staged`: of a task that is a source of another one."""
        ...

    def stage(self, source: Staged, request: Combine) -> None:
        """From now on `source` is what `request` makes of its task's sources."""
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
    no_room = 0

    def __init__(self, engine: _core.Engine, in_place: bool = True) -> None:
        """`in_place`: mapped pages may be read where they are and stay resident for a moment."""
        self._engine = engine
        self._tensors = Tensors(engine.map_file, in_place)
        self._calls: dict[int, Call] = {}

    def tensor(self, source: Source) -> _core.Tensor:
        """The source as the core sees it; see `Feeder`."""
        return self._tensors.get(source)

    def reader(self, source: Source) -> Read:
        """What reads a source for a device."""
        return self._tensors.reader(source)

    def let_go(self, task: TensorTask) -> None:
        """Forget what was derived for a task that is combined elsewhere."""
        self._tensors.let_go(task.sources)

    def _inputs(
        self, task: TensorTask, call: Call, get: Callable[[Source], _core.Tensor]
    ) -> tuple[list[_core.Tensor], _core.Tensor | None]:
        base = None if call.base is None else get(task.sources[call.base])
        return [get(task.sources[source]) for source in call.sources], base

    def measure(self, ticket: int, task: TensorTask, request: Measure, *, staged: bool = False) -> None:
        """Start a measure; see `Feeder`."""
        call = self._calls[ticket] = call_of(request)
        start = getattr(self._engine, f"measure_{call.kernel}")
        start(ticket, *self._inputs(task, call, self.tensor), task.compute.name, *call.arguments)
        if isinstance(request, SURVEYS):
            self._tensors.let_go(task.sources)

    def combine(self, shard: int, segment: int, task: TensorTask, request: Combine) -> None:
        """Fill an output segment; see `Feeder`."""
        copied, packed = find_copied(task, request), find_packed(task)
        if packed is not None:
            self._engine.fill_packed(shard, segment, self.tensor(packed.source), packed.form)
        elif copied is not None and task.must_agree:
            tensors = [self.tensor(source) for source in task.sources]
            self._engine.fill_agreed(shard, segment, tensors, task.name)
        elif copied is not None:
            self._engine.fill_copy(shard, segment, self.tensor(copied))
        else:
            self._engine.fill_combine(shard, segment, self._make(task, request, self.tensor))
        self._tensors.let_go(task.sources)

    def _make(self, task: TensorTask, request: Combine, get: Callable[[Source], _core.Tensor]) -> _core.Combine:
        call = call_of(request)
        make: Callable[..., _core.Combine] = getattr(self._engine, f"combine_{call.kernel}")
        return make(*self._inputs(task, call, get), task.compute.name, task.dtype.code, *call.arguments)

    def stage(self, source: Staged, request: Combine) -> None:
        """Make a tensor of a combine; see `Feeder`."""
        combine = self._make(source.task, request, self._tensors.part)
        self._tensors.put(source, _core.Tensor.from_combine(combine))

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
