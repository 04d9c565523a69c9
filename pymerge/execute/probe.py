"""How fast this machine merges, found in a moment: files in memory are written and read, the recipe's own kernels run.

Everything is timed in processor time of this process, so that what else the machine does is not in it.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from pymerge.backends.cpu import CpuOps
from pymerge.errors import ResourceError
from pymerge.execute.memory import find_combine
from pymerge.kernels.common.convert import NUMPY_DTYPES
from pymerge.methods.base import Method
from pymerge.plan.values import TensorTask

__all__ = ["time_file", "time_task"]

#: Bytes of the file in memory that is written and read, and of a piece of either, as the engine has them.
_FILE, _WRITTEN, _READ = 32 << 20, 4 << 20, 512 << 10
#: How often each piece is read.
_READS = 2
#: Elements of a task's sources at most; a select of fewer goes another way than one of whole tensors.
_ELEMENTS = 1 << 22
#: What sources hold, over and over: as many different values. A prime, so that what a select samples is not all alike.
_VALUES = 200_003
#: Seconds after which no further round is begun, and rounds at most.
_ENOUGH, _ROUNDS = 0.03, 3


def time_file() -> tuple[float, float]:
    """Processor seconds for each byte that is (read, written) where files are in memory.

    Raises:
        ResourceError: there is no memory for it.
    """
    # From pages' beginnings, as the engine's: from 16 bytes further on, a processor was seen to copy 3 times slower.
    block, piece = mmap.mmap(-1, _WRITTEN), mmap.mmap(-1, _READ)
    block.write(bytes(_WRITTEN))
    piece.write(bytes(_READ))
    try:
        file = _open_in_memory()
        try:
            write = [_time(partial(os.pwrite, file, block, at)) for at in range(0, _FILE, _WRITTEN)]
            read = [
                _time(partial(os.preadv, file, [piece], at)) for at in range(0, _FILE, _READ) for _ in range(_READS)
            ]
        finally:
            os.close(file)
    except OSError as error:
        raise ResourceError(f"cannot find out how fast memory is: {error.strerror or error}") from None
    # Medians: now and then something else has had the memory, or the processor's clock.
    return median(read) / _READ, median(write) / _WRITTEN


def _open_in_memory() -> int:
    """A file that is on no disk, or, where the system has no such thing, one that is removed already."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("pymerge")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def time_task(method: Method, task: TensorTask) -> float:
    """Processor seconds for each element of a task: its program's measures and its combine, on made-up weights.

    Raises:
        PymergeError: as the method's program does.
    """
    assert task.inputs is not None
    columns = min(task.shape[-1] if task.shape else 1, _ELEMENTS)
    rows = max(1, min(task.count, _ELEMENTS) // columns)
    count = rows * columns
    inputs = replace(task.inputs, count=count, shape=(rows, columns))
    sources = [_make_weights(place, source.dtype.name, count) for place, source in enumerate(task.sources)]
    out = np.empty(count, NUMPY_DTYPES[task.dtype.name])
    ops = CpuOps()

    def run() -> None:
        ops.combine(find_combine(method, inputs, ops, sources, task.compute), sources, task.compute, out)

    run()
    seconds: list[float] = []
    while len(seconds) < _ROUNDS and sum(seconds) < _ENOUGH:
        seconds.append(_time(run))
    return min(seconds) / count


def _make_weights(place: int, dtype: str, count: int) -> Any:
    """A base, and models near it, of the sizes that weights have."""
    values = np.random.default_rng(0).standard_normal(_VALUES, np.float32) * 0.02
    if place:
        values += np.random.default_rng(place).standard_normal(_VALUES, np.float32) * 0.002
    return np.resize(values.astype(NUMPY_DTYPES[dtype]), count)


def _time(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started
