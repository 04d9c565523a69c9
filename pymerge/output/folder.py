"""The order in which an output folder comes to be, and what it must not do to what is there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymerge.errors import RecipeError, ResourceError
from pymerge.execute.values import ExecutionReport
from pymerge.output.card import write_card
from pymerge.output.extras import copy_extras
from pymerge.output.files import sync_folder, write_json, write_text
from pymerge.output.manifest import make_manifest
from pymerge.output.report import MergeReport
from pymerge.output.sharing import count_shareable
from pymerge.schedule.values import Schedule

__all__ = ["Preparation", "finish", "prepare"]

INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
#: The name under which the field's tools look for a merge's recipe.
RECIPE = "mergekit_config.yml"
MANIFEST = "pymerge_manifest.json"

#: Weight files of an earlier merge, and what a killed one left of them.
_SHARD = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|\.model.*\.safetensors\.partial")


@dataclass(frozen=True, slots=True)
class Preparation:
    """A folder that is ready to be written to.

    Attributes:
        stale: shards of an earlier merge, removed once the new ones are complete.
    """

    folder: Path
    stale: tuple[Path, ...]


def prepare(schedule: Schedule, folder: Path, *, overwrite: bool = False, reflink: bool = True) -> Preparation:
    """Check and make the output folder; nothing is written yet.

    With `overwrite`, an old index and config go first: from here until the end the folder does not
    look like a model. Files that pymerge does not write are never touched.

    Raises:
        RecipeError: the folder is not empty, is no folder, or is one of the models.
        ResourceError: it cannot be made, or the disk cannot hold the output.
    """
    _refuse_models(schedule, folder)
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"output {folder} is a file, not a folder; name another one")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        present = sorted(folder.iterdir())
    except OSError as error:
        raise ResourceError(f"output folder {folder} cannot be made: {error.strerror or error}") from error
    if present and not overwrite:
        raise RecipeError(
            f"output folder {folder} is not empty ({len(present)} entries, such as {present[0].name}); "
            "name a new folder, or give --overwrite to replace the model in it"
        )
    _refuse_full_disk(schedule, folder, reflink)
    for name in (CONFIG, INDEX):
        (folder / name).unlink(missing_ok=True)
    sync_folder(folder)
    return Preparation(folder, tuple(path for path in present if _SHARD.fullmatch(path.name)))


def finish(
    schedule: Schedule,
    preparation: Preparation,
    execution: ExecutionReport,
    *,
    settings: Mapping[str, Any],
    copy_tokenizer: bool = True,
    write_model_card: bool = True,
) -> MergeReport:
    """Complete a folder whose shards are in place; index and config come last.

    Args:
        settings: what the user chose, for the manifest.

    Raises:
        ResourceError: a file cannot be written.
    """
    plan, folder = schedule.plan, preparation.folder
    shards = {shard.name for shard in schedule.shards}
    for path in preparation.stale:
        if path.name not in shards:
            path.unlink(missing_ok=True)
    copied = copy_extras(plan.models[plan.donor].folder, folder, tokenizer=copy_tokenizer)
    if plan.config.text:
        write_text(folder / RECIPE, plan.config.text)
    if write_model_card:
        write_card(plan, folder)
    report = MergeReport.collect(schedule, folder, execution, copied)
    write_json(folder / MANIFEST, make_manifest(schedule, report, settings))
    if len(schedule.shards) > 1:
        write_json(folder / INDEX, _make_index(schedule))
    write_json(folder / CONFIG, plan.model_config)
    sync_folder(folder)
    return report


def _make_index(schedule: Schedule) -> dict[str, Any]:
    tasks = schedule.plan.tasks
    weight_map = {tasks[place.task].name: shard.name for shard in schedule.shards for place in shard.placements}
    total = sum(place.nbytes for shard in schedule.shards for place in shard.placements)
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}


def _refuse_models(schedule: Schedule, folder: Path) -> None:
    target = folder.resolve()
    for model in schedule.plan.models:
        if model.folder.resolve() == target:
            raise RecipeError(f"output folder {folder} is the folder of model {str(model.ref)!r}; name another one")


def _refuse_full_disk(schedule: Schedule, folder: Path, reflink: bool) -> None:
    # An older model that is overwritten stays until the new shards are whole: its room does not count.
    needed = sum(shard.size for shard in schedule.shards) - (count_shareable(schedule, folder) if reflink else 0)
    disk = shutil.disk_usage(folder)
    free = disk.free
    # A disk of no size at all is one without a limit (tmpfs).
    if disk.total and needed > free:
        raise ResourceError(
            f"output folder {folder}: the merge writes {needed:,} bytes and the disk has {free:,} free; "
            f"make room for {needed - free:,} more, or name a folder on another disk"
        )
