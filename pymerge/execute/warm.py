"""Compiling a device's kernels before their tensors are there: each kind of task once, on very small ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from threading import Thread
from typing import Any

import numpy as np

from pymerge.backends.protocol import Ops
from pymerge.kernels.common.convert import NUMPY_DTYPES
from pymerge.methods.base import Method
from pymerge.ops import Copy, Cut, Select
from pymerge.plan.values import TensorTask

__all__ = ["WarmUp"]

#: Kernels are compiled anew for sizes that 16 divides and for those it does not; for 1 as well.
_DIVISOR = 16
#: Larger tensors than this take other ways through some kernels (kernels/select/triton/search.py).
_LARGE = 1 << 18


class WarmUp:
    """Runs the kinds of a merge's tasks in a thread of its own, while inputs are read."""

    def __init__(self, method: Method, tasks: Sequence[TensorTask], ops: Ops) -> None:
        self._work = list(_list_kinds(tasks))
        self._method = method
        self._ops = ops
        self._error: Exception | None = None
        self._thread = Thread(target=self._run, name="pymerge-warm-up", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for task in self._work:
                run_small(self._method, task, self._ops)
        except Exception as error:
            self._error = error

    def wait(self) -> None:
        """Return when everything is compiled; raises what compiling raised."""
        self._thread.join()
        if self._error:
            raise self._error


def _shrink(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A small shape, the product of which is large if that of `shape` is, in its first dimension."""
    small = [size if size <= 2 * _DIVISOR else _DIVISOR + size % _DIVISOR for size in shape]
    if math.prod(shape) > _LARGE:
        small[0] += -(-_LARGE // math.prod(small[1:]) // _DIVISOR) * _DIVISOR
    return tuple(small)


def _list_kinds(tasks: Sequence[TensorTask]) -> Iterator[TensorTask]:
    """A shrunk task of each kind: same types, sizes of the same divisibility, the same program."""
    seen = set()
    for task in tasks:
        if task.inputs is None:
            continue
        shape = _shrink(task.shape)
        inputs = replace(task.inputs, shape=shape, count=math.prod(shape), name="")
        kinds = tuple(source.dtype.name for source in task.sources)
        key = (shape, kinds, task.dtype, task.compute, len(inputs.models), repr(inputs.values), repr(inputs.per_model))
        if key not in seen:
            seen.add(key)
            yield replace(task, shape=shape, inputs=inputs)


def run_small(method: Method, task: TensorTask, ops: Ops) -> None:
    """Run a task's program on made-up values."""
    assert task.inputs is not None
    random = np.random.default_rng(0)
    operands: list[Any] = [
        (random.standard_normal(task.count) / 64).astype(NUMPY_DTYPES[source.dtype.name]) for source in task.sources
    ]
    program = method.program(task.inputs)
    answer: object = None
    while True:
        try:
            request = program.send(answer)
        except StopIteration as stop:
            if not isinstance(stop.value, Copy):
                ops.combine(stop.value, operands, task.compute, np.empty(task.count, NUMPY_DTYPES[task.dtype.name]))
            return
        if isinstance(request, Select) and request.group:
            answer = tuple(Cut(0, 0) for _ in request.counts)
        else:
            answer = ops.measure(request, operands, task.compute)
