"""What to say about an infinity or NaN in the output: which tensor, where, and whose."""

from __future__ import annotations

from collections.abc import Iterator

from pymerge.checkpoint.sources import LowRank, Rows, Update, list_stored
from pymerge.checkpoint.values import Source
from pymerge.errors import NonFiniteError
from pymerge.execute.feeders import find_packed
from pymerge.execute.tensors import Tensors, open_tensors
from pymerge.plan.values import Staged, TensorTask

__all__ = ["nonfinite_error"]

#: What has room for larger numbers than a type, or than a form of GGUF files; blocks of Q8_0 have a scale in float16.
_WIDER = {
    "float16": "out_dtype: bfloat16 or float32",
    "F16": "--out-format gguf:bf16",
    "Q8_0": "--out-format gguf:bf16",
    **dict.fromkeys(
        ("bfloat16", "float32"), "smaller weights, or dtype: float64 (bfloat16 and float32 end at the same numbers)"
    ),
}
_SMALLER = "smaller weights"


def nonfinite_error(task: TensorTask, index: int) -> NonFiniteError:
    """The error for the output value of `task` at flat `index`."""
    guilty = []
    packed = find_packed(task)
    sources = (packed.source,) if packed else task.sources
    tensors = open_tensors()
    for named, label in zip(sources, task.labels, strict=True):
        for source, at, whose in _list_origins(named, index, label):
            if tensors.get(source).is_nonfinite_at(at):
                place = _find_place(source, at, tensors)
                guilty.append(f"{whose} ({place})" if place else whose)
    if guilty:
        cause = f"it is not finite in {' and '.join(guilty)} either"
    else:
        form = packed.form if packed else task.dtype.name
        cause = f"all inputs are finite there, so it overflowed in {form}; try {_WIDER.get(form, _SMALLER)}"
    shape = packed.elements if packed else task.shape
    return NonFiniteError(
        f"{task.name}: the merged value at flat index {index} (shape {list(shape)}) is not finite: {cause}. "
        "--allow-nonfinite stores such values and counts them"
    )


def _find_place(source: Source, index: int, tensors: Tensors) -> str | None:
    """The file that a source's value is not finite by: the base's, or that of an adapter, with what it holds there."""
    if isinstance(source, LowRank) and not (source.base and tensors.get(source.base).is_nonfinite_at(index)):
        for update in source.updates:
            for factor, at in _list_factors(source, update, index):
                if tensors.get(factor).is_nonfinite_at(at):
                    return f"{_find_path(factor)}, {factor.name}"
        return f"{_find_path(source.updates[0].a)}, whose product overflows"
    return _find_path(source)


def _find_path(source: Source) -> str | None:
    stored = next(list_stored(source), None)
    return stored.path if stored else None


def _list_factors(source: LowRank, update: Update, index: int) -> Iterator[tuple[Source, int]]:
    """Places in the factors that an element of a product comes from; see kernels/low_rank/spec.py."""
    rows, columns = source.shape
    row, column = divmod(index, columns)
    for step in range(update.rank):
        if update.transposed:
            yield from ((update.a, column * update.rank + step), (update.b, step * rows + row))
        else:
            yield from ((update.a, step * columns + column), (update.b, row * update.rank + step))


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
