"""What to say about an infinity or NaN in the output: which tensor, where, and whose."""

from __future__ import annotations

from collections.abc import Iterator

from pymerge.checkpoint.sources import Rows, list_stored
from pymerge.checkpoint.values import Source
from pymerge.errors import NonFiniteError
from pymerge.execute.feeders import find_packed
from pymerge.execute.tensors import open_tensors
from pymerge.plan.values import Staged, TensorTask

__all__ = ["nonfinite_error"]


def nonfinite_error(task: TensorTask, index: int) -> NonFiniteError:
    """The error for the output value of `task` at flat `index`."""
    guilty = []
    packed = find_packed(task)
    sources = (packed.source,) if packed else task.sources
    tensors = open_tensors()
    for named, label in zip(sources, task.labels, strict=True):
        for source, at, whose in _list_origins(named, index, label):
            if tensors.get(source).is_nonfinite_at(at):
                stored = next(list_stored(source), None)
                guilty.append(f"{whose} ({stored.path})" if stored else whose)
    if guilty:
        cause = f"it is not finite in {' and '.join(guilty)} either"
    else:
        form = packed.form if packed else task.dtype
        instead = "--out-format gguf:bf16" if packed else "out_dtype: bfloat16 or float32"
        cause = f"all inputs are finite there, so it overflowed in {form}; try {instead}"
    shape = packed.elements if packed else task.shape
    return NonFiniteError(
        f"{task.name}: the merged value at flat index {index} (shape {list(shape)}) is not finite: {cause}. "
        "--allow-nonfinite stores such values and counts them"
    )


def _list_origins(source: Source, index: int, label: str) -> Iterator[tuple[Source, int, str]]:
    """(source, flat index in it, label) of what can be read by itself: of a stage, what it merges."""
    if isinstance(source, Staged):
        for part, whose in zip(source.task.sources, source.task.labels, strict=True):
            yield from _list_origins(part, index, whose)
    elif isinstance(source, Rows) and isinstance(source.matrices[0], Staged):
        row, column = divmod(index, source.count // (len(source.choice.starts) - 1))
        first, end = source.choice.starts[row : row + 2]
        if end - first == 1 and source.choice.rows[first] >= 0:
            width = source.count // (len(source.choice.starts) - 1)
            part = source.matrices[source.choice.parts[first]]
            yield from _list_origins(part, source.choice.rows[first] * width + column, label)
    else:
        yield source, index, label
