"""What a merge will read, write and need, told before it starts."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from pymerge.backends.choice import device_room
from pymerge.checkpoint.sources import Packed, Rows
from pymerge.execute.auto import expect
from pymerge.execute.lanes import bytes_needed
from pymerge.ops import Copy
from pymerge.output.fetching import count_fetched
from pymerge.output.sharing import count_shareable
from pymerge.output.target import find_existing
from pymerge.plan.costs import count_costs, trace_program
from pymerge.plan.values import MergePlan, Staged, TensorTask
from pymerge.schedule.values import Schedule

__all__ = ["describe_tasks", "forecast"]


def forecast(schedule: Schedule, folder: Path, *, reflink: bool = True, vram: int | None = None) -> dict[str, Any]:
    """The plan in numbers, as plain values; sizes in bytes. Reads no weight; measures this machine for a moment.

    Args:
        folder: where the output would go; it need not exist.
        reflink: what the file system can share is neither read nor written.
        vram: bytes of a GPU that may be used; None takes most of the one that is here, if there is one.

    Raises:
        ResourceError: there is no memory to find out how fast this machine is.
    """
    plan = schedule.plan
    costs = count_costs(plan)
    existing = find_existing(folder)
    shared = count_shareable(schedule, existing) if reflink else 0
    needed = sum(shard.size for shard in schedule.shards) - shared
    expected = expect(schedule, costs, shared)
    room = expected.room if vram is None else device_room(vram)
    seconds = {"cpu": expected.cpu, **({expected.backend: expected.device} if expected.backend else {})}
    return {
        "method": plan.method.name,
        "models": [str(model.ref) for model in plan.models],
        "donor": str(plan.models[plan.donor].ref),
        "layers": plan.layers,
        "merged": costs.merged,
        "copied": costs.copied,
        "passes": costs.passes,
        "read": costs.read - shared,
        "written": costs.written - shared,
        "shards": len(schedule.shards),
        "format": schedule.shards[0].name.rpartition(".")[2],
        "threads": schedule.resources.threads,
        "memory": schedule.resources.memory,
        "shared": shared,
        "fetched": count_fetched(plan),
        "seconds": seconds,
        "partial": expected.partial,
        "no_device": expected.why_not,
        "room": room,
        "no_room": 0 if room is None else _count_too_large(plan, room),
        "needed": needed,
        "free": shutil.disk_usage(existing).free,
        "warnings": [str(problem) for problem in plan.warnings],
    }


def _count_too_large(plan: MergePlan, room: int) -> int:
    """Merged tensors whose sources and output need more."""
    large = [task for task in plan.tasks if task.inputs is not None and bytes_needed(task) > room]
    return sum(not isinstance(trace_program(plan.method, task).combine, Copy) for task in large)


def describe_tasks(plan: MergePlan) -> list[dict[str, Any]]:
    """Every output tensor with its sources and resolved parameters, as plain values."""
    return [_describe(task) for task in plan.tasks]


def _describe(task: TensorTask) -> dict[str, Any]:
    packed = task.sources[0]
    if isinstance(packed, Packed):
        return {**_describe(_find_made(packed, task)), "name": task.name, "dtype": packed.form}
    inputs = task.inputs
    return {
        "name": task.name,
        "shape": list(task.shape),
        "dtype": task.dtype.name,
        "compute": task.compute.name,
        "copy": inputs is None,
        "parameters": {} if inputs is None else _drop_unset(inputs.values),
        "sources": [
            {
                "model": label,
                "tensor": source.name,
                "base": inputs is not None and position == inputs.base,
                "parameters": _select_parameters(task, position),
            }
            for position, (label, source) in enumerate(zip(task.labels, task.sources, strict=True))
        ],
    }


def _find_made(packed: Packed, task: TensorTask) -> TensorTask:
    """What makes the elements that are packed."""
    source = packed.source
    if isinstance(source, Rows):
        (source,) = source.matrices
    if isinstance(source, Staged):
        return source.task
    return replace(task, shape=packed.elements, sources=(source,))


def _select_parameters(task: TensorTask, position: int) -> dict[str, Any]:
    if task.inputs is None or position not in task.inputs.models:
        return {}
    index = task.inputs.models.index(position)
    return _drop_unset({name: values[index] for name, values in task.inputs.per_model.items()})


def _drop_unset(values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
