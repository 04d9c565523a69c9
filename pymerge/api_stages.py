"""Stages that cannot be made while a later one reads them: merged by themselves, into folders beside the output."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from pymerge.config.stages import take_stage
from pymerge.config.values import MergeConfig
from pymerge.dtypes import BY_NAME
from pymerge.plan.values import MergePlan

__all__ = ["StageFolders"]

#: Plans a document, with folders of stages that are merged already.
Plan: TypeAlias = Callable[[MergeConfig, Mapping[str, Path]], MergePlan]


@dataclass(frozen=True, slots=True)
class StageFolders:
    """Where stages go that are merged by themselves; `keep`: all of them are, and stay."""

    home: Path
    keep: bool

    @classmethod
    def beside(cls, out: Path, *, keep: bool) -> StageFolders:
        """For an output folder; what is not kept has a name that says so."""
        if out.name in ("", ".."):
            # "." and the like: where that is has a name.
            out = out.resolve()
        return cls(out.with_name(f"{out.name}.stages" if keep else f".{out.name}.stages"), keep)

    def merge(self, planned: MergePlan, plan: Plan, carry_out: Callable[[MergePlan, Path], object]) -> MergePlan:
        """Merge what has to be, in float32 as later stages would see it; returns the plan of what is left.

        Its tensors have the types that they have in one pass: those of the folders are only in between.
        """
        config = planned.config
        merged: dict[str, Path] = {}
        for place, stage in enumerate(config.stages):
            name = str(stage.stage)
            if not self.keep and name not in planned.separate:
                continue
            # Names of recipes are no paths.
            folder = self.home / (name if re.fullmatch(r"\w[\w.-]*", name) else f"stage-{place + 1}")
            carry_out(_plan_stage(config, stage, lambda document: plan(document, merged)), folder)
            merged[name] = folder
        if not merged:
            return planned
        left = plan(config, merged)
        types = {task.name: task.dtype for task in planned.tasks}
        # What is known of the whole recipe does not depend on whether stages were merged by themselves.
        return replace(
            left,
            tasks=tuple(replace(task, dtype=types[task.name]) for task in left.tasks),
            models=planned.models,
            donor=planned.donor,
            model_config=planned.model_config,
            vocabulary=planned.vocabulary,
        )

    def remove(self) -> None:
        """Let go of what nobody asked for."""
        if not self.keep:
            shutil.rmtree(self.home, ignore_errors=True)


def _plan_stage(config: MergeConfig, stage: MergeConfig, plan: Callable[[MergeConfig], MergePlan]) -> MergePlan:
    """A stage as a merge of its own, in the type that later ones see: float64 where it is calculated in that."""
    planned = plan(take_stage(config, stage))
    wide = BY_NAME["float64"]
    if all(task.compute != wide for task in planned.tasks):
        return planned
    return plan(take_stage(config, replace(stage, out_dtype=wide)))
