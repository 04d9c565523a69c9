"""Sources as whole arrays, derived as their specifications say: for the reference, and for checking outputs."""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pymerge.backends.files import read_into
from pymerge.backends.reference import ReferenceOps
from pymerge.checkpoint.sources import Dequantized, Given, LowRank, Noise, Packed, Rows
from pymerge.checkpoint.values import Source, StoredTensor
from pymerge.execute.feeders import calculated
from pymerge.execute.groups import GroupCuts, find_group_cuts
from pymerge.execute.memory import find_combine
from pymerge.kernels.common.convert import NUMPY_DTYPES, Array, decode
from pymerge.kernels.dequantize import packed
from pymerge.kernels.dequantize import spec as dequantize
from pymerge.kernels.low_rank import spec as low_rank
from pymerge.kernels.noise import spec as noise
from pymerge.kernels.pack import spec as pack
from pymerge.kernels.rows import spec as rows
from pymerge.ops import Combine, Copy, Cut, Measure
from pymerge.plan.values import MergePlan, Staged

__all__ = ["pack_source", "read_source"]


def read_source(source: Source) -> Array:
    """All elements of a source, flat, of its dtype.

    Raises:
        FormatError: a file ends inside of a tensor.
        ResourceError: it cannot be read.
    """
    read: Callable[[Any], Array] = _READERS[type(source)]
    return read(source)


def _read_stored(stored: StoredTensor) -> Array:
    # Codes are bytes.
    array = np.empty(stored.count, NUMPY_DTYPES.get(stored.dtype.name, np.dtype(np.uint8)))
    read_into(stored.path, stored.offset, array.view(np.uint8))
    return array


def _read_rows(source: Rows) -> Array:
    choice, matrices = source.choice, [read_source(matrix) for matrix in source.matrices]
    width = source.count // max(1, len(choice.starts) - 1)
    return rows.run(matrices, choice.starts, choice.parts, choice.rows, width, source.dtype.name)


def _read_low_rank(source: LowRank) -> Array:
    updates = [(read_source(u.a), read_source(u.b), u.rank, u.scale, u.transposed) for u in source.updates]
    return low_rank.run(
        None if source.base is None else read_source(source.base), updates, source.shape[0], source.shape[1]
    )


def _read_staged(source: Staged) -> Array:
    task, ops = source.task, ReferenceOps()
    operands = [read_source(part) for part in task.sources]
    combine: Combine = Copy(0)
    if task.inputs is not None:
        combine = find_combine(source.method, task.inputs, ops, operands, task.compute, _find_cuts(source))
    out = np.empty(task.count, NUMPY_DTYPES[task.dtype.name])
    ops.combine(calculated(task, combine), operands, task.compute, out)
    return out


def _find_cuts(source: Staged) -> tuple[Cut, ...] | None:
    """The answer to a select that looks at many of the stage's tensors; None if the task asks for none."""
    if source.stage is None:
        return None
    number = bisect_left(source.stage.tasks, source.task.name, key=lambda task: task.name)
    select = source.stage.group_selects.get(number)
    return None if select is None else _find_group_cuts(_Same(source.stage), select.group)[number]


@dataclass(frozen=True, slots=True)
class _Same:
    """A plan as the key of a cache: equal to itself alone."""

    plan: MergePlan

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.plan is self.plan

    def __hash__(self) -> int:
        return id(self.plan)


# Tensors of a group come one after the other, and each group is read as a whole.
@functools.lru_cache(maxsize=16)
def _find_group_cuts(stage: _Same, group: str) -> GroupCuts:
    tasks = stage.plan.tasks

    def measure(requests: Mapping[int, Measure]) -> Iterator[tuple[int, Any]]:
        for number, request in requests.items():
            task = tasks[number]
            operands = [read_source(source) for source in task.sources]
            yield number, ReferenceOps().measure(request, operands, task.compute)

    selects = {number: select for number, select in stage.plan.group_selects.items() if select.group == group}
    return find_group_cuts(tasks, selects, measure)


def _read_dequantized(source: Dequantized) -> Array:
    codes = read_source(source.codes)
    if source.scales is None:
        return packed.run(codes.reshape(-1, packed.FORMATS[source.scheme][1]), source.scheme).reshape(-1)
    scales = read_source(source.scales)
    if source.block is None:
        *lead, columns, rows = source.shape
        groups = (*lead, rows, columns // dequantize.MXFP4_GROUP)
        values = dequantize.run_mxfp4(codes.reshape(*groups, -1), scales.reshape(groups))
        return values.swapaxes(-1, -2).reshape(-1)
    *lead, rows, columns = source.shape
    grid = (*lead, -(-rows // source.block[0]), -(-columns // source.block[1]))
    kind = source.codes.dtype.code
    return dequantize.run_fp8(codes.reshape(source.shape), scales.reshape(grid), source.block, kind).reshape(-1)


def _read_noise(source: Noise) -> Array:
    base = None if source.base is None else read_source(source.base)
    return noise.run(base, source.count, source.key, source.scale, source.kind)


def _read_given(source: Given) -> Array:
    assert source.data is not None, source.name
    return np.frombuffer(source.data, np.float32)


def pack_source(source: Packed) -> tuple[Array, int, int]:
    """The bytes of a packed tensor, uint8 [count]; how many elements are not finite there; the flat index of the first.

    Of a block that is not as a whole, the first is the one that is to blame, where there is one.
    """
    values = decode(read_source(source.source), "float32")
    blocks = pack.run(values, source.form)
    packed = np.zeros(source.count, np.uint8)
    packed[: blocks.size] = blocks
    bad = np.flatnonzero(pack.nonfinite(blocks, source.form))
    if not bad.size:
        return packed, 0, -1
    first = int(bad[0])
    return packed, bad.size, first + int(np.argmin(np.isfinite(values[first : first + pack.FORMATS[source.form][0]])))


_READERS: dict[type[Any], Callable[[Any], Array]] = {
    StoredTensor: _read_stored,
    Rows: _read_rows,
    LowRank: _read_low_rank,
    Staged: _read_staged,
    Dequantized: _read_dequantized,
    Noise: _read_noise,
    Given: _read_given,
}
