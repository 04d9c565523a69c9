"""A task's program with those of the stages that its sources come from: what is measured, of which task, in order."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pymerge.checkpoint.values import Source
from pymerge.methods.base import Method
from pymerge.ops import Combine, Copy, Cut, Measure, Select
from pymerge.plan.values import Staged, TensorTask

__all__ = ["Decided", "Measured", "Steps", "follow"]


@dataclass(frozen=True, slots=True)
class Measured:
    """A measure of a task, whose answer is sent back; `staged`: the task's output is a source of another one."""

    task: TensorTask
    request: Measure
    staged: bool


@dataclass(frozen=True, slots=True)
class Decided:
    """How the elements of a staged source are made; sent None."""

    source: Staged
    combine: Combine


Steps: TypeAlias = Generator[Measured | Decided, Any, Combine]


def follow(method: Method, task: TensorTask, cuts: Sequence[Cut] | None = None, *, staged: bool = False) -> Steps:
    """What has to be done before a task can be combined, and how it then is.

    Args:
        cuts: the answer to what the program asks of a group of tensors, if it does.
    """
    yield from _decide(task.sources, set())
    if task.inputs is None:
        return Copy(0)
    program = method.program(task.inputs)
    answer: object = None
    while True:
        try:
            request = program.send(answer)
        except StopIteration as stop:
            combine: Combine = stop.value
            return combine
        if isinstance(request, Select) and request.group:
            answer = cuts
        else:
            answer = yield Measured(task, request, staged)


def _decide(sources: Sequence[Source], done: set[int]) -> Generator[Measured | Decided, Any, None]:
    for source in sources:
        if id(source) in done:
            continue
        done.add(id(source))
        if isinstance(source, Staged):
            combine = yield from follow(source.method, source.task, staged=True)
            yield Decided(source, combine)
        else:
            yield from _decide(source.parts, done)
