"""Memory budget: how large the working pieces of a merge may be, so that all of them fit."""

from __future__ import annotations

from collections.abc import Sequence

from pymerge.errors import RecipeError, ResourceError
from pymerge.plan.values import TensorTask
from pymerge.schedule.machine import usable_memory, usable_processors
from pymerge.schedule.values import Resources

__all__ = ["assign_resources"]

MIB = 1 << 20
#: What Python, its libraries and thread stacks take before any data is touched.
_RESIDENT_AT_REST = 96 * MIB
#: Blocks are 4 MiB where they fit: smaller ones cost more system calls, larger ones gain nothing
#: (direct writes of 1, 4 and 8 MiB took 1.27, 1.16 and 1.35 s for 2.2 GB).
_LARGEST_BLOCK = 4 * MIB
_SMALLEST_BLOCK = 64 * 1024
#: Keys that a select may gather per source before it counts instead: 16 MiB, twice while it chooses.
_GATHERED = 32 * MIB
_BUFFERS = 8


def _inputs_per_block(task: TensorTask) -> float:
    """Mapped input bytes that filling one byte of this task's output touches."""
    if task.nbytes == 0:
        return 0.0
    return sum(source.nbytes for source in task.sources) / task.nbytes


def assign_resources(tasks: Sequence[TensorTask], threads: int | None, memory: int | None) -> Resources:
    """Return the resources for these tasks.

    Args:
        threads: None takes every processor that the process may use.
        memory: bytes; None takes a quarter of what the machine (or its cgroup) has.

    Raises:
        RecipeError: less than one thread.
        ResourceError: the budget is too small for any block size.
    """
    if threads is not None and threads < 1:
        raise RecipeError(f"threads = {threads} must be at least 1")
    workers = threads if threads is not None else usable_processors()
    budget = memory if memory is not None else usable_memory() // 4
    fan_in = max((_inputs_per_block(task) for task in tasks), default=1.0)
    models = max((len(task.sources) for task in tasks if task.inputs), default=1)
    block = _LARGEST_BLOCK
    while block > _SMALLEST_BLOCK and _least_budget(workers, fan_in, models, block) > budget:
        block //= 2
    least = _least_budget(workers, fan_in, models, block)
    if least > budget:
        raise ResourceError(
            f"a memory budget of {budget // MIB} MiB is too small for {workers} threads and {models} models; "
            f"give at least {-(-least // MIB)} MiB with --memory, or fewer --threads"
        )
    return Resources(workers, budget, block, max(_BUFFERS, 2 * workers))


def _least_budget(workers: int, fan_in: float, models: int, block: int) -> int:
    buffers = max(_BUFFERS, 2 * workers) * block
    needed = _RESIDENT_AT_REST + buffers + int(workers * fan_in * block)
    # Gathered keys get what they want, but no more than a quarter of the whole.
    return needed + min(_GATHERED * models, needed // 3 + 1)
