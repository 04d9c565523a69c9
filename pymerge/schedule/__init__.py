"""From a plan to a schedule: output layout with exact offsets, order, memory budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pymerge.plan.costs import find_twin
from pymerge.plan.values import MergePlan
from pymerge.schedule.budget import assign_resources, count_cuts, count_ranked
from pymerge.schedule.layout import METADATA, lay_out
from pymerge.schedule.values import Placement, Resources, Schedule, Shard

if TYPE_CHECKING:
    from pymerge.schedule.gguf_layout import GgufHead

__all__ = ["Placement", "Resources", "Schedule", "Shard", "make_schedule"]


def make_schedule(
    plan: MergePlan,
    *,
    shard_size: int = 5_000_000_000,
    threads: int | None = None,
    memory: int | None = None,
    single: str = "model.safetensors",
    metadata: Mapping[str, str] = METADATA,
    head: GgufHead | None = None,
) -> Schedule:
    """Lay a plan out on disk.

    Args:
        shard_size: bytes of tensors per output file; 0 or less for one file.
        threads, memory: see `pymerge.schedule.budget.assign_resources`.
        single: name of the file, if there is one.
        metadata: of its header.
        head: what stands before the tensors, if that is a GGUF file.

    Raises:
        ResourceError: the memory budget is too small.
    """
    twins = [find_twin(plan, task) for task in plan.tasks]
    cuts, ranked = count_cuts(plan), count_ranked(plan)
    resources = assign_resources(plan.tasks, threads, memory, cuts=cuts, ranked=ranked)
    if head is not None:
        from pymerge.schedule.gguf_layout import lay_out_gguf

        return Schedule(plan, lay_out_gguf(single, plan.tasks, twins, head), resources)
    return Schedule(plan, lay_out(plan.tasks, shard_size, twins, single=single, metadata=metadata), resources)
