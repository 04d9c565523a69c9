"""What becomes of a merge whose output is an adapter: loaded where one is asked for."""

from __future__ import annotations

from pymerge.checkpoint.adapters import WEIGHTS
from pymerge.output.adapter import finish_adapter, prepare_adapter
from pymerge.plan.adapter import AdapterParts, convert_plan
from pymerge.plan.values import MergePlan
from pymerge.schedule import Schedule, make_schedule

__all__ = ["AdapterParts", "convert_plan", "finish_adapter", "prepare_adapter", "schedule_adapter"]


def schedule_adapter(converted: MergePlan, threads: int | None, memory: int | None) -> Schedule:
    """Lay a plan of `convert_plan` out; raises as `make_schedule`."""
    return make_schedule(converted, shard_size=0, threads=threads, memory=memory, single=WEIGHTS[0])
