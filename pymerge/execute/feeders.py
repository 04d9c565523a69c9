"""How a task's requests reach a backend: streamed through the compiled engine, or whole in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pymerge import _core
from pymerge.backends import answers
from pymerge.backends.rules import flatten_lines, flatten_rules, flatten_task_merge
from pymerge.checkpoint.values import StoredTensor
from pymerge.ops import Combine, Copy, Gram, MaskedSum, Measure, NearSwap, Overlap, Select, WeightedSum
from pymerge.plan.values import TensorTask

__all__ = ["Feeder", "StreamFeeder"]


class Feeder(Protocol):
    """Runs measures and combines of tasks; answers come from `collect`."""

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


class StreamFeeder:
    """The CPU backend over mapped files: tiles in, output blocks out, nothing held whole."""

    def __init__(self, engine: _core.Engine, in_place: bool = True) -> None:
        """`in_place`: mapped pages may be read where they are and stay resident for a moment."""
        self._engine = engine
        self._in_place = in_place
        self._files: dict[str, _core.MappedFile] = {}
        self._requests: dict[int, Measure] = {}

    def tensor(self, stored: StoredTensor) -> _core.Tensor:
        """The stored tensor as the core sees it; its file is mapped once."""
        file = self._files.get(stored.path)
        if file is None:
            file = self._files[stored.path] = self._engine.map_file(stored.path, self._in_place)
        return _core.Tensor.from_file(file, stored.offset, stored.count, stored.dtype.code)

    def _tensors(self, task: TensorTask, positions: Sequence[int]) -> list[_core.Tensor]:
        return [self.tensor(task.sources[position]) for position in positions]

    def measure(self, ticket: int, task: TensorTask, request: Measure) -> None:
        """Start a measure; see `Feeder`."""
        tensors = self._tensors(task, request.sources)
        base = None if request.base is None else self.tensor(task.sources[request.base])
        self._requests[ticket] = request
        compute = task.compute.name
        if isinstance(request, Gram) and request.lines:
            self._engine.measure_gram_lines(ticket, tensors, base, compute, flatten_lines(request.lines))
        elif isinstance(request, Gram):
            self._engine.measure_gram(ticket, tensors, base, compute)
        elif isinstance(request, Select):
            self._engine.measure_select(ticket, tensors, base, compute, list(request.counts))
        elif isinstance(request, Overlap):
            self._engine.measure_overlap(ticket, tensors, base, compute, flatten_rules(request.rules))
        else:
            rules = flatten_rules(request.rules)
            self._engine.measure_masked_sum(ticket, tensors, base, compute, rules, request.norm)

    def combine(self, shard: int, segment: int, task: TensorTask, request: Combine) -> None:
        """Fill an output segment; see `Feeder`."""
        if isinstance(request, Copy) and task.sources[request.source].dtype == task.dtype:
            if task.must_agree:
                tensors = self._tensors(task, range(len(task.sources)))
                self._engine.fill_agreed(shard, segment, tensors, task.name)
            else:
                self._engine.fill_copy(shard, segment, self.tensor(task.sources[request.source]))
            return
        if isinstance(request, Copy):
            request = WeightedSum((request.source,), (1.0,))
        tensors = self._tensors(task, request.sources)
        compute, code = task.compute.name, task.dtype.code
        if isinstance(request, WeightedSum) and request.lines:
            base = None if request.base is None else self.tensor(task.sources[request.base])
            lines = flatten_lines(request.lines)
            self._engine.fill_weighted_sum_lines(
                shard, segment, tensors, base, compute, code, request.coefficients, lines
            )
            return
        if isinstance(request, WeightedSum):
            self._engine.fill_weighted_sum(shard, segment, tensors, compute, code, list(request.coefficients))
            return
        base = self.tensor(task.sources[request.base])
        if isinstance(request, NearSwap):
            self._engine.fill_near_swap(shard, segment, tensors, base, compute, code, request.t)
            return
        self._engine.fill_task_merge(
            shard,
            segment,
            tensors,
            base,
            compute,
            code,
            *flatten_task_merge(request),
        )

    def collect(self, seconds: float) -> list[tuple[int, object]]:
        """Wait for answers; see `Feeder`."""
        done: list[tuple[int, object]] = []
        for ticket, raw in self._engine.wait(seconds):
            request = self._requests.pop(ticket)
            size = len(request.sources)
            answer: object
            if isinstance(request, Gram) and request.lines:
                answer = answers.line_sums(raw)
            elif isinstance(request, Gram):
                answer = answers.gram_matrix(raw, size)
            elif isinstance(request, MaskedSum):
                answer = answers.masked_totals(raw, size, request.norm)
            elif isinstance(request, Overlap):
                answer = answers.overlaps(raw, size)
            else:
                answer = answers.cuts(raw)
            done.append((ticket, answer))
        return done

    def take_nonfinite(self) -> list[tuple[int, int, int]]:
        """What was found; see `Feeder`."""
        found: list[tuple[int, int, int]] = self._engine.take_nonfinite()
        return found

    def locate_nonfinite(self, shard: int, segment: int) -> int:
        """Combine again from the start, up to the first one; see `Feeder`."""
        index: int = self._engine.locate_nonfinite(shard, segment)
        return index
