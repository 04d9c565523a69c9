"""How fast this machine merges, found in a moment: files in memory are written and read, the recipe's own kernels run.

Everything is timed in processor time of this process, so that what else the machine does is not in it.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
from pymerge.ops import KEEP_ALL, Bernoulli, MaskedSum, RankBernoulli, TaskMerge
from pymerge.plan.costs import trace_program
from pymerge.plan.values import TensorTask

__all__ = ["time_file", "time_task"]

#: Bytes of the file in memory that is written and read, and of a piece of either, as the engine has them.
_FILE, _WRITTEN, _READ = 64 << 20, 4 << 20, 512 << 10
#: Threads at most that have such a file each.
_MOST_THREADS = 8
#: Elements of a source at most, and of all sources; a select of fewer goes another way than one of whole tensors.
_ELEMENTS, _ALL_ELEMENTS = 1 << 22, 1 << 24
#: What sources hold, over and over: as many different values. A prime, so that what a select samples is not all alike.
_VALUES = 200_003
#: Seconds after which no further round is begun, and rounds at most.
_ENOUGH, _ROUNDS = 0.03, 3


def time_file(threads: int = 1) -> tuple[float, float]:
    """Processor seconds for each byte that is (read, written) where files are in memory, by so many threads at once.

    Raises:
        ResourceError: there is no memory for it.
    """
    # At once, since processors share caches, memory, and often one core.
    count = min(threads, _MOST_THREADS)
    try:
        with ThreadPoolExecutor(count) as pool:
            found = list(pool.map(lambda _: _time_one_file(), range(count)))
    except OSError as error:
        raise ResourceError(f"cannot find out how fast memory is: {error.strerror or error}") from None
    # Medians: now and then something else has had the memory, or the processor's clock.
    reads, writes = zip(*found, strict=True)
    return median([each for read in reads for each in read]), median([each for write in writes for each in write])


def _time_one_file() -> tuple[list[float], list[float]]:
    """Seconds for each byte of every piece that is read, and written."""
    # From pages' beginnings, as the engine's: from 16 bytes further on, a processor was seen to copy 3 times slower.
    block, piece = mmap.mmap(-1, _WRITTEN), mmap.mmap(-1, _READ)
    block.write(bytes(_WRITTEN))
    piece.write(bytes(_READ))
    file = _open_in_memory()
    try:
        writes = [_time(partial(os.pwrite, file, block, at), _WRITTEN) for at in range(0, _FILE, _WRITTEN)]
        # From the beginning, which caches have let go of.
        return [_time(partial(os.preadv, file, [piece], at), _READ) for at in range(0, _FILE, _READ)], writes
    finally:
        os.close(file)


def _time(run: Callable[[], object], size: int) -> float:
    """Seconds of the calling thread, for each byte."""
    started = time.thread_time()
    run()
    return (time.thread_time() - started) / size


def _open_in_memory() -> int:
    """A file that is on no disk, or, where the system has no such thing, one that is removed already."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("pymerge")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def time_task(method: Method, task: TensorTask, threads: int = 1) -> float:
    """Processor seconds for each element of a task: its program's measures and its combine, on made-up weights.

    Args:
        task: of at least one element.
        threads: that share the elements.

    Raises:
        PymergeError: as the method's program does.
    """
    assert task.inputs is not None
    shape = _shrink(task.shape, min(_ELEMENTS, _ALL_ELEMENTS // len(task.sources)))
    count = math.prod(shape)
    inputs = replace(task.inputs, count=count, shape=shape)
    sources = [_make_weights(place, source.dtype.name, count) for place, source in enumerate(task.sources)]
    out = np.empty(count, NUMPY_DTYPES[task.dtype.name])
    ops = CpuOps(threads)

    measured = any(isinstance(each, MaskedSum) for each in trace_program(method, task).measures)

    def run() -> None:
        combine = find_combine(method, inputs, ops, sources, task.compute)
        if measured and isinstance(combine, TaskMerge):
            # Masks that were drawn for a norm are kept from measure to combine; here they would be drawn twice.
            drawn = [isinstance(rule, (Bernoulli, RankBernoulli)) for rule in combine.rules]
            rules = (KEEP_ALL if once else rule for once, rule in zip(drawn, combine.rules, strict=True))
            combine = replace(combine, rules=tuple(rules))
        ops.combine(combine, sources, task.compute, out)

    run()
    seconds: list[float] = []
    while len(seconds) < _ROUNDS and sum(seconds) < _ENOUGH:
        started = time.process_time()
        run()
        seconds.append(time.process_time() - started)
    return min(seconds) / count


def _shrink(shape: tuple[int, ...], elements: int) -> tuple[int, ...]:
    """The shape with so many elements at most; rows keep their length, where one fits."""
    if len(shape) < 2:
        return tuple(min(length, elements) for length in shape)
    columns = min(shape[-1], elements)
    return max(1, min(math.prod(shape), elements) // columns), columns


def _make_weights(place: int, dtype: str, count: int) -> Any:
    """A base, and models near it, of the sizes that weights have."""
    values = np.random.default_rng(0).standard_normal(_VALUES, np.float32) * 0.02
    if place:
        values += np.random.default_rng(place).standard_normal(_VALUES, np.float32) * 0.002
    return np.resize(values.astype(NUMPY_DTYPES[dtype]), count)
