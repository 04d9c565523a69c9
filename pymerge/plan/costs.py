"""What a merge will read and write, found by running every method's program without data."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pymerge.checkpoint.sources import Packed, list_stored
from pymerge.checkpoint.values import Source, StoredTensor
from pymerge.methods.base import Method
from pymerge.ops import (
    Combine,
    Copy,
    Cut,
    Gram,
    KeyCounts,
    KeySample,
    MaskedTotals,
    Measure,
    Overlap,
    RowDivergence,
    Select,
    SelectSpread,
)
from pymerge.plan.values import MergePlan, Staged, TensorTask

__all__ = ["Costs", "Trace", "count_costs", "find_twin", "iterate_staged", "trace_program", "trace_task"]


@dataclass(frozen=True, slots=True)
class Trace:
    """One task's requests: its measures in order, and its combine."""

    measures: tuple[Measure, ...]
    combine: Combine


@dataclass(frozen=True, slots=True)
class Costs:
    """A plan in numbers.

    Attributes:
        read: bytes read from the inputs, every pass counted.
        written: bytes of tensors in the output.
        copied, merged: number of tasks that copy a tensor, and that calculate one.
        passes: the most passes over its inputs that any task makes.
    """

    read: int
    written: int
    copied: int
    merged: int
    passes: int


def count_costs(plan: MergePlan) -> Costs:
    """Count what a plan reads and writes. Small tensors may be kept between passes and cost less."""
    read = copied = passes = 0
    for task in plan.tasks:
        trace = trace_task(plan, task)
        copied += isinstance(trace.combine, Copy) and not isinstance(task.sources[0], Packed)
        passes = max(passes, sum(map(_count_passes, (*trace.measures, trace.combine))))
        read += _count_read(task, (*trace.measures, trace.combine))
        if task.must_agree:
            read += sum(source.nbytes for source in task.sources[1:])
        for staged in iterate_staged(task):
            # What combines it is read with each pass over what it makes.
            read += _count_read(staged.task, trace_program(staged.method, staged.task).measures)
    written = sum(task.nbytes for task in plan.tasks)
    return Costs(read, written, copied, len(plan.tasks) - copied, passes)


def _count_read(task: TensorTask, requests: Sequence[Measure | Combine]) -> int:
    sizes = (sum(_read_bytes(task.sources[place]) for place in _list_sources(request)) for request in requests)
    return sum(size * _count_passes(request) for size, request in zip(sizes, requests, strict=True))


def iterate_staged(task: TensorTask) -> Iterator[Staged]:
    """The staged sources that a task is made of, those that they are made of included."""
    waiting: list[Source] = list(task.sources)
    while waiting:
        source = waiting.pop()
        waiting.extend(source.parts)
        if isinstance(source, Staged):
            yield source


def trace_task(plan: MergePlan, task: TensorTask) -> Trace:
    """Run a task's program with placeholder answers; see `trace_program`."""
    return trace_program(plan.method, task)


def trace_program(method: Method, task: TensorTask) -> Trace:
    """Run a method's program for a task, with placeholder answers.

    Raises:
        PymergeError: as the program does, for inputs that it cannot work with.
    """
    if task.inputs is None:
        return Trace((), Copy(0))
    program = method.program(task.inputs)
    measures: list[Measure] = []
    try:
        request = next(program)
        while True:
            measures.append(request)
            request = program.send(_answer(request))
    except StopIteration as stop:
        return Trace(tuple(measures), stop.value)


def find_twin(plan: MergePlan, task: TensorTask) -> StoredTensor | None:
    """The stored tensor whose bytes a task's output will have, if that is known without reading."""
    trace = trace_task(plan, task)
    combine = trace.combine
    # What was decided on a measure was decided on a placeholder.
    if not isinstance(combine, Copy) or trace.measures or task.must_agree:
        return None
    source = task.sources[combine.source]
    if not isinstance(source, StoredTensor) or source.dtype != task.dtype:
        return None
    return source if source.nbytes else None


def _read_bytes(source: Source) -> int:
    """What one pass over a source reads of files."""
    return sum(stored.nbytes for stored in list_stored(source))


def _count_passes(request: Measure | Combine) -> int:
    """A group's cuts are found in a pass that counts, and one more for what ties at them."""
    return 2 if isinstance(request, Select) and request.group else 1


def _answer(request: Measure) -> object:
    """An answer that leads a program down its usual way: inputs at an angle, cuts that keep."""
    if isinstance(request, Gram) and request.lines:
        # One line stands for all: plans are made in time that does not grow with tensors.
        size = range(len(request.sources))
        return array("d", (1.0 if row == column else 0.5 for row in size for column in size if row <= column))
    if isinstance(request, Gram):
        size = range(len(request.sources))
        return tuple(tuple(1.0 if row == column else 0.5 for column in size) for row in size)
    if isinstance(request, Select):
        return tuple(Cut(bits=0, last=count) for count in request.counts)
    if isinstance(request, SelectSpread):
        return (Cut(bits=0, last=0),)
    if isinstance(request, KeyCounts):
        return array("Q", [0]) * (len(request.sources) * (request.buckets + request.open))
    if isinstance(request, KeySample):
        return array("Q")
    if isinstance(request, RowDivergence):
        return array("d", [1.0])
    if isinstance(request, Overlap):
        return tuple((1, 1) for _ in request.sources)
    return tuple(MaskedTotals(total=1.0, kept=1.0, count=1) for _ in request.sources)


def _list_sources(request: Measure | Combine) -> set[int]:
    """The sources that a request reads, each once."""
    if isinstance(request, Copy):
        return {request.source}
    base = () if request.base is None else (request.base,)
    return {*request.sources, *base}
