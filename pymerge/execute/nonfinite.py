"""What to say about an infinity or NaN in the output: which tensor, where, and whose."""

from __future__ import annotations

from pymerge.checkpoint.sources import list_stored
from pymerge.errors import NonFiniteError
from pymerge.execute.tensors import open_tensors
from pymerge.plan.values import TensorTask

__all__ = ["nonfinite_error"]


def nonfinite_error(task: TensorTask, index: int) -> NonFiniteError:
    """The error for the output value of `task` at flat `index`."""
    guilty = []
    tensors = open_tensors()
    for source, label in zip(task.sources, task.labels, strict=True):
        if tensors.get(source).is_nonfinite_at(index):
            guilty.append(f"{label} ({next(list_stored(source)).path})")
    if guilty:
        cause = f"it is not finite in {' and '.join(guilty)} either"
    else:
        cause = f"all inputs are finite there, so it overflowed in {task.dtype}; try out_dtype: bfloat16 or float32"
    return NonFiniteError(
        f"{task.name}: the merged value at flat index {index} (shape {list(task.shape)}) is not finite: {cause}. "
        "--allow-nonfinite stores such values and counts them"
    )
