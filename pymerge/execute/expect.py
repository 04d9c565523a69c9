"""How long a merge is likely to take: what a plan moves, and what this machine was found to do in a moment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from pymerge.backends.choice import Work
from pymerge.checkpoint.sources import list_stored
from pymerge.execute.probe import time_file, time_task
from pymerge.methods.base import Method
from pymerge.ops import Copy
from pymerge.plan.costs import Costs, iterate_staged, trace_program
from pymerge.plan.values import MergePlan, TensorTask
from pymerge.schedule.machine import usable_processors
from pymerge.schedule.values import Schedule

__all__ = ["Kind", "count_work", "group_tasks"]

#: Kinds of tasks whose kernels are run; others are taken to cost what the largest kind does.
_TIMED = 3

#: What tells tasks apart whose elements cost differently: requests, and the types of sources and output.
Kind = tuple[object, ...]


def count_work(schedule: Schedule, costs: Costs, shared: int = 0) -> Work:
    """Put a schedule in numbers; runs kernels for about a tenth of a second.

    Args:
        costs: of its plan.
        shared: bytes that the output shares with the inputs, which are neither read nor written.
    """
    plan = schedule.plan
    loaded = sum(sum(stored.nbytes for source in task.sources for stored in list_stored(source)) for task in plan.tasks)
    threads = min(schedule.resources.threads, usable_processors())  # more of them do not share it out further
    read_cost, write_cost = time_file(threads)
    return Work(
        loaded=max(0, loaded - shared),
        read=costs.read - shared,
        written=costs.written - shared,
        compute_seconds=_time_kernels(plan, threads),
        read_cost=read_cost,
        write_cost=write_cost,
        threads=threads,
    )


def group_tasks(plan: MergePlan) -> list[tuple[Method, Sequence[TensorTask]]]:
    """The tasks that compute, by kind, the one with the most elements first; those of earlier stages are among them."""
    kinds: dict[Kind, list[TensorTask]] = defaultdict(list)
    methods: dict[Kind, Method] = {}
    for method, task in _list_tasks(plan):
        trace = trace_program(method, task)
        if task.inputs is None or not task.count or (isinstance(trace.combine, Copy) and not trace.measures):
            continue
        requests = tuple(
            (type(each), getattr(each, "sources", ()), tuple(map(type, getattr(each, "rules", ()))))
            for each in (*trace.measures, trace.combine)
        )
        kind = (method.name, requests, tuple(source.dtype for source in task.sources), task.dtype, task.compute)
        methods[kind] = method
        kinds[kind].append(task)
    found = [(methods[kind], tasks) for kind, tasks in kinds.items()]
    return sorted(found, key=lambda each: -sum(task.count for task in each[1]))


def _list_tasks(plan: MergePlan) -> Iterator[tuple[Method, TensorTask]]:
    for task in plan.tasks:
        yield plan.method, task
        for staged in iterate_staged(task):
            yield staged.method, staged.task


def _time_kernels(plan: MergePlan, threads: int) -> float:
    """Processor seconds of all kernels; what tasks of rare kinds cost is taken from the most common one."""
    kinds = group_tasks(plan)
    costs = [time_task(each, max(tasks, key=lambda task: task.count), threads) for each, tasks in kinds[:_TIMED]]
    costs += costs[:1] * (len(kinds) - len(costs))
    return sum(cost * sum(task.count for task in tasks) for cost, (_, tasks) in zip(costs, kinds, strict=True))
