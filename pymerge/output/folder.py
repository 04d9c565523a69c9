"""The order in which an output folder comes to be, and what it must not do to what is there."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymerge.checkpoint.json_files import read_json
from pymerge.errors import RecipeError, ResourceError
from pymerge.execute.journal import JOURNAL, Journal, claim
from pymerge.execute.restore import temporary_name
from pymerge.execute.values import ExecutionReport
from pymerge.output.card import CARD, write_card
from pymerge.output.extras import write_extras
from pymerge.output.fetching import count_fetched_beside
from pymerge.output.files import digest_json, remove_file, sync_folder, write_json, write_text
from pymerge.output.fingerprint import digest_file
from pymerge.output.identity import describe_differences, make_identity
from pymerge.output.manifest import MANIFEST, make_manifest
from pymerge.output.older import remove_older
from pymerge.output.report import MergeReport
from pymerge.output.sharing import count_shareable
from pymerge.output.target import find_existing, refuse_folders
from pymerge.plan.values import RECIPES, MergePlan
from pymerge.schedule.values import Schedule, Shard

__all__ = [
    "Preparation",
    "check_folder",
    "finish",
    "is_made",
    "list_files",
    "make_folder",
    "prepare",
    "refuse_full_disk",
    "refuse_other",
    "take_up",
]

INDEX = "model.safetensors.index.json"
CONFIG = "config.json"

#: Weight files of an earlier merge, and what a killed one left of them.
_TEMPORARY = re.compile(r"\.model.*\.safetensors\.partial")
_SHARD = re.compile(rf"model(-\d{{5}}-of-\d{{5}})?\.safetensors|{_TEMPORARY.pattern}")


@dataclass(frozen=True, slots=True)
class Preparation:
    """A folder that is ready to be written to.

    Attributes:
        journal: holds the lock on the folder; use it as a context.
        identity: of what will be made.
        stale: shards of an earlier merge, removed once the new ones are complete.
    """

    folder: Path
    journal: Journal
    identity: Mapping[str, Any]
    stale: tuple[Path, ...]


def prepare(
    schedule: Schedule,
    folder: Path,
    *,
    overwrite: bool = False,
    restart: bool = False,
    reflink: bool = True,
    hash_inputs: bool = False,
) -> Preparation:
    """Check, make and lock the output folder; no weight is written yet.

    A folder that holds the journal of an unfinished merge is taken up again if that one would have made
    the same bytes. With `overwrite`, an old index and config go first: from here until the end the
    folder does not look like a model. Files that pymerge does not write are never touched.

    Args:
        restart: of an unfinished merge, whatever it was, nothing is kept.
        hash_inputs: fingerprints of the inputs have a digest of all their bytes.

    Raises:
        RecipeError: the folder is not empty, is no folder, is one of the models, or holds what is left
            of another merge.
        ResourceError: it cannot be made, is in use, or the disk cannot hold the output.
    """
    make_folder(schedule.plan, folder, overwrite=overwrite)
    refuse_folders(folder, list_files(schedule))
    identity = make_identity(schedule, hash_inputs=hash_inputs)
    journal = claim(folder)
    try:
        if restart:
            for path in folder.iterdir():
                if _TEMPORARY.fullmatch(path.name):
                    remove_file(path)
        take_up(journal, identity, f"output folder {folder}", restart=restart)
        if journal.identity is None and not restart:
            # New: another merge may have come and gone since the folder was looked at.
            _refuse_content(folder, overwrite)
        present = sorted(folder.iterdir())
        refuse_full_disk(schedule, folder, reflink, journal.recorded)
        journal.begin(identity)
        for name in (CONFIG, INDEX):
            remove_file(folder / name)
    except BaseException as error:
        journal.__exit__(type(error), error, None)
        raise
    sync_folder(folder)
    return Preparation(
        folder, journal, identity, tuple(path for path in present if _SHARD.fullmatch(path.name) and not path.is_dir())
    )


def make_folder(plan: MergePlan, folder: Path, *, overwrite: bool) -> None:
    """Make the output folder; raises as `prepare`, if it holds what must not be lost."""
    check_folder(plan, folder, overwrite=overwrite)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"output folder {folder} cannot be made: {error.strerror or error}") from error


def check_folder(plan: MergePlan, folder: Path, *, overwrite: bool) -> None:
    """Refuse an output folder that `make_folder` refuses; nothing is made."""
    _refuse_models(plan, folder)
    if not os.path.lexists(folder):
        return
    if not os.path.isdir(folder):
        raise RecipeError(f"output {folder} is a file, not a folder; name another one")
    try:
        if not (folder / JOURNAL).exists():
            _refuse_content(folder, overwrite)
    except OSError as error:
        raise ResourceError(f"output folder {folder} cannot be read: {error.strerror or error}") from error


def list_files(schedule: Schedule) -> tuple[str, ...]:
    """Names of files that every merge of this schedule may write, or remove before it does."""
    shards = (shard.name for shard in schedule.shards)
    return (CONFIG, INDEX, MANIFEST, CARD, *RECIPES, *shards)


def is_made(schedule: Schedule, folder: Path) -> bool:
    """Whether a folder holds what a schedule makes, whole: as its manifest says, unread."""
    if not os.path.isfile(folder / CONFIG) or not os.path.isfile(folder / MANIFEST):
        return False
    manifest, identity = read_json(folder / MANIFEST), make_identity(schedule)
    return all(manifest.get(key) == identity[key] for key in ("pymerge", "seed", "inputs", "tasks", "layout"))


def take_up(journal: Journal, identity: Mapping[str, Any], where: str, *, restart: bool) -> None:
    """See to it that what an earlier attempt left is of the same merge, or is forgotten.

    Args:
        where: what holds it, for messages.

    Raises:
        RecipeError: it is of another merge, or damaged.
    """
    if restart:
        journal.forget()
    elif journal.damaged:
        raise RecipeError(f"{journal.path}: the journal of an unfinished merge is damaged; --restart begins anew")
    elif journal.identity is not None:
        refuse_other(journal.identity, identity, where)


def refuse_other(before: Mapping[str, Any], identity: Mapping[str, Any], where: str) -> None:
    """Refuse to go on with an unfinished merge of another identity; see `take_up`."""
    if differences := describe_differences(before, identity):
        raise RecipeError(
            f"{where} holds an unfinished merge that differs from this one "
            f"({'; '.join(differences)}); undo the change to go on, or give --restart to begin anew"
        )


def _refuse_content(folder: Path, overwrite: bool) -> None:
    present = sorted(path.name for path in folder.iterdir() if path.name != JOURNAL)
    if present and not overwrite:
        raise RecipeError(
            f"output folder {folder} is not empty ({len(present)} entries, such as {present[0]}); "
            "name a new folder, or give --overwrite to replace the model in it"
        )


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
            remove_file(path)
    copied = write_extras(plan, folder, tokenizer=copy_tokenizer)
    for name in RECIPES:
        # Of what was here before.
        if name != plan.recipe_file or not plan.config.text:
            remove_file(folder / name)
    written = [*copied]
    if plan.config.text:
        write_text(folder / plan.recipe_file, plan.config.text)
        written.append(plan.recipe_file)
    if write_model_card:
        write_card(plan, folder)
        written.append(CARD)
    remarks = remove_older(folder, {*written, *shards})
    files = {name: digest_file(folder / name) for name in written}
    index = _make_index(schedule) if len(schedule.shards) > 1 else None
    # What comes last is known already.
    files |= {
        name: digest_json(value) for name, value in ((INDEX, index), (CONFIG, plan.model_config)) if value is not None
    }
    report = MergeReport.collect(schedule, folder, execution, copied, remarks)
    write_json(folder / MANIFEST, make_manifest(schedule, preparation.identity, report, settings, files))
    if index is not None:
        write_json(folder / INDEX, index)
    write_json(folder / CONFIG, plan.model_config)
    sync_folder(folder)
    preparation.journal.remove()
    return report


def _make_index(schedule: Schedule) -> dict[str, Any]:
    tasks = schedule.plan.tasks
    weight_map = {tasks[place.task].name: shard.name for shard in schedule.shards for place in shard.placements}
    total = sum(place.nbytes for shard in schedule.shards for place in shard.placements)
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}


def _refuse_models(plan: MergePlan, folder: Path) -> None:
    # Not by pathlib, which fails where links lead in a circle.
    target = os.path.realpath(folder)
    for model in plan.models:
        if os.path.realpath(model.folder) == target:
            raise RecipeError(f"output folder {folder} is the folder of model {str(model.ref)!r}; name another one")


def refuse_full_disk(schedule: Schedule, folder: Path, reflink: bool, recorded: Collection[str] = frozenset()) -> None:
    """Compare what a schedule writes into `folder`, which need not exist, with what its disk has.

    Args:
        recorded: tensors that an earlier attempt wrote, by its journal.

    Raises:
        ResourceError: it has too little.
    """
    # An older model that is overwritten stays until the new shards are whole: its room does not count.
    place = find_existing(folder)
    needed = sum(shard.size for shard in schedule.shards) - (count_shareable(schedule, place) if reflink else 0)
    needed -= sum(_count_there(schedule, shard, folder, recorded) for shard in schedule.shards)
    fetched = count_fetched_beside(schedule.plan, place)
    needed += fetched
    disk = shutil.disk_usage(place)
    free = disk.free
    # A disk of no size at all is one without a limit (tmpfs).
    if disk.total and needed > free:
        raise ResourceError(
            f"output folder {folder}: the merge writes {needed - fetched:,} bytes "
            + (f"and fetches {fetched:,} to the same disk, " if fetched else "")
            + f"and the disk has {free:,} free; "
            f"make room for {needed - free:,} more, or name a folder on another disk"
        )


def _count_there(schedule: Schedule, shard: Shard, folder: Path, recorded: Collection[str]) -> int:
    """Bytes of a shard that an earlier attempt has reserved or written."""
    path = folder / temporary_name(shard.name)
    if not path.is_file():
        # It may have been finished, and is taken up again then; else this name is an older model's.
        path = folder / shard.name
        names = (schedule.plan.tasks[place.task].name for place in shard.placements if place.nbytes)
        if path.is_symlink() or not path.is_file() or not all(name in recorded for name in names):
            return 0
    return min(shard.size, path.stat().st_blocks * 512)
