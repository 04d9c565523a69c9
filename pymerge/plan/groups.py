"""Selects that look at many tensors together: who asks for them, and whether the tensors fit."""

from __future__ import annotations

from collections.abc import Sequence

from pymerge.errors import DTypeError
from pymerge.methods.base import Method
from pymerge.ops import Select
from pymerge.plan.values import TensorTask

__all__ = ["list_group_selects"]


def list_group_selects(method: Method, tasks: Sequence[TensorTask]) -> dict[int, Select]:
    """The selects of groups, by the number of the task whose program asks for one first of all.

    Raises:
        DTypeError: a group has tensors of float64 and of narrower types.
    """
    selects: dict[int, Select] = {}
    leaders: dict[str, TensorTask] = {}
    for number, task in enumerate(tasks):
        request = next(method.program(task.inputs), None) if task.inputs else None
        if not isinstance(request, Select) or not request.group:
            continue
        leader = leaders.setdefault(request.group, task)
        if leader.compute != task.compute:
            raise DTypeError(
                f'tensors "{leader.name}" and "{task.name}" are trimmed together and of different precision '
                f"({leader.compute}, {task.compute}); set dtype: float64, or trim_scope: tensor"
            )
        selects[number] = request
    return selects
