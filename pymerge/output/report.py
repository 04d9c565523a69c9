"""What a merge gives back: where the model is, what it took, what the user should know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pymerge.execute.values import ExecutionReport
from pymerge.schedule.values import Schedule

__all__ = ["MergeReport"]


@dataclass(frozen=True, slots=True)
class MergeReport:
    """A finished merge.

    Attributes:
        method: the merge method's name.
        tensors: how many output tensors there are; `copied` of them kept a source's bytes.
        shards: names of the weight files; `size` is the bytes of all of them.
        extras: files taken over from the donor model.
        warnings: what was tolerated, one sentence each.
        execution: time, bytes, memory.
        memory: the budget, in bytes.
        stages: seconds of plan, prepare, merge and finish.
        pushed: where the result is on the hub; None if it was not sent there.
    """

    folder: Path
    method: str
    tensors: int
    copied: int
    layers: int
    shards: tuple[str, ...]
    size: int
    extras: tuple[str, ...]
    warnings: tuple[str, ...]
    execution: ExecutionReport
    memory: int
    stages: Mapping[str, float] = field(default_factory=dict)
    pushed: str | None = None

    @classmethod
    def collect(
        cls,
        schedule: Schedule,
        folder: Path,
        execution: ExecutionReport,
        extras: tuple[str, ...],
        remarks: tuple[str, ...] = (),
    ) -> MergeReport:
        """Put together what the stages know; `remarks` are warnings of what the folder holds."""
        plan = schedule.plan
        return cls(
            folder=folder,
            method=plan.method.name,
            tensors=len(plan.tasks),
            copied=execution.copied,
            layers=plan.layers,
            shards=tuple(shard.name for shard in schedule.shards),
            size=sum(shard.size for shard in schedule.shards),
            extras=extras,
            warnings=(*(str(problem) for problem in plan.warnings), *remarks),
            execution=execution,
            memory=schedule.resources.memory,
        )

    def to_json(self) -> dict[str, Any]:
        """The report as plain values, for `--format json`."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            **values,
            "folder": str(self.folder),
            "execution": describe_execution(self.execution),
            "stages": dict(self.stages),
        }


def describe_execution(execution: ExecutionReport) -> dict[str, Any]:
    """An execution report as plain values, without the digests, which the manifest has."""
    values = {each.name: getattr(execution, each.name) for each in fields(execution) if each.name != "digests"}
    return {**values, "nonfinite": dict(execution.nonfinite)}
