"""Stages of a recipe as models of later ones: their tensors are made while they are read, not stored.

Where that cannot be, a stage has to be merged by itself before; the plan says which.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pymerge.checkpoint import Checkpoint, Source, open_checkpoint
from pymerge.checkpoint.folder import add_adapter
from pymerge.checkpoint.json_files import read_json
from pymerge.checkpoint.remote import Locate
from pymerge.checkpoint.tokenizer_files import GENERATION
from pymerge.config.values import ModelRef
from pymerge.plan.costs import find_twin
from pymerge.plan.sources import list_references
from pymerge.plan.values import MergePlan, Staged, TensorTask

if TYPE_CHECKING:
    from pymerge.vocabulary import Vocabulary

__all__ = ["StageOpener", "list_separate", "settle_models"]

#: Plans of stages, by name.
Stages = Mapping[str, MergePlan]


def _find_stage(ref: ModelRef, stages: Stages) -> MergePlan | None:
    """The stage that a reference names, if it does."""
    return None if ref.revision else stages.get(ref.path)


@dataclass(frozen=True, slots=True)
class StageOpener:
    """Opens models, stages among them.

    Attributes:
        merged: folders of stages that are merged already.
        desk: a folder for the small files of stages whose tokenizer is a new one, as long as plans are made.
        locate: finds models of a hub.
    """

    stages: Stages
    merged: Mapping[str, Path]
    desk: Path
    locate: Locate | None = None

    def __call__(self, ref: ModelRef) -> Checkpoint:
        """Open a model; raises as `open_checkpoint`."""
        stage = _find_stage(ref, self.stages)
        if stage is not None:
            return add_adapter(self._make(ref, stage), ref, self.locate)
        if ref.path in self.merged and not ref.revision:
            return replace(open_checkpoint(replace(ref, path=str(self.merged[ref.path])), self.locate), ref=ref)
        return open_checkpoint(ref, self.locate)

    def _make(self, ref: ModelRef, plan: MergePlan) -> Checkpoint:
        """What a stage makes, as a checkpoint; what it only copies is the stored tensor itself."""
        tensors = {task.name: _make_source(plan, task) for task in plan.tasks}
        folder = plan.models[plan.donor].folder
        if plan.vocabulary is not None:
            folder = self._lay_out(folder, plan, plan.vocabulary)
        return Checkpoint(ref, folder, tensors, plan.model_config, ())

    def _lay_out(self, donor: Path, plan: MergePlan, vocabulary: Vocabulary) -> Path:
        """A folder with the tokenizer files and configs that a stage would write."""
        folder = self.desk / str(list(self.stages.values()).index(plan))
        if folder.exists():
            return folder
        folder.mkdir()
        files = {"config.json": json.dumps(plan.model_config, default=dict).encode(), **vocabulary.files}
        if (donor / GENERATION).is_file():
            files[GENERATION] = json.dumps({**read_json(donor / GENERATION), **vocabulary.generation_ids}).encode()
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        return folder


def _make_source(plan: MergePlan, task: TensorTask) -> Source:
    copied = find_twin(plan, task) or (task.sources[0] if task.inputs is None else None)
    if copied is not None:
        return copied
    widened = replace(task, dtype=task.compute)
    return Staged(task.name, task.shape, widened, plan.method, task.dtype, plan if plan.group_selects else None)


def list_separate(plan: MergePlan, stages: Stages) -> list[str]:
    """Names of the stages that a plan reads and that cannot be made while they are read."""
    read = {ref.path: stage for ref in list_references(plan.config) if (stage := _find_stage(ref, stages))}
    return [name for name, stage in read.items() if plan.group_selects or _looks_around(stage)]


def _looks_around(stage: MergePlan) -> bool:
    """Whether a stage looks at many tensors before it merges one, or compares integers."""
    return bool(stage.group_selects) or any(task.must_agree for task in stage.tasks)


def settle_models(plan: MergePlan, stages: Stages) -> MergePlan:
    """The plan with the checkpoints that are on disk in place of the stages that are made of them."""
    models: dict[ModelRef, Checkpoint] = {}
    for model in plan.models:
        stage = _find_stage(model.ref, stages)
        # Of a stage that an adapter changes, that one's file as well.
        for each in (*(stage.models if stage else ()), *((model,) if model.files else ())):
            models.setdefault(each.ref, each)
    donor = plan.models[plan.donor]
    stage = _find_stage(donor.ref, stages)
    if stage is None:
        return replace(plan, models=tuple(models.values()), donor=list(models).index(donor.ref))
    behind = stage.models[stage.donor]
    return replace(
        plan,
        models=tuple(models.values()),
        donor=list(models).index(behind.ref),
        vocabulary=_follow(stage.vocabulary, plan.vocabulary),
    )


def _follow(before: Vocabulary | None, now: Vocabulary | None) -> Vocabulary | None:
    """The vocabulary of a plan whose donor's was `before`."""
    if before is None or now is None:
        return now or before
    return replace(now, generation_ids={**before.generation_ids, **now.generation_ids})
