"""An output that is one file of weights, without anything beside it: made ready before a merge, completed after it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymerge import _core
from pymerge.checkpoint.kinds import is_pickled
from pymerge.errors import RecipeError, ResourceError
from pymerge.execute.journal import Journal, claim
from pymerge.execute.restore import temporary_name
from pymerge.execute.values import ExecutionReport
from pymerge.output.files import remove_file, sync_folder
from pymerge.output.folder import refuse_full_disk, take_up
from pymerge.output.identity import make_identity
from pymerge.output.report import MergeReport
from pymerge.plan.values import MergePlan
from pymerge.schedule.layout import METADATA
from pymerge.schedule.values import Schedule

__all__ = ["FilePreparation", "find_metadata", "finish_file", "journal_name", "prepare_file", "refuse_path"]


@dataclass(frozen=True, slots=True)
class FilePreparation:
    """A place that is ready to be written to; use `journal`, which holds its lock, as a context.

    `identity` is of what will be made.
    """

    path: Path
    journal: Journal
    identity: Mapping[str, Any]


def journal_name(file: str) -> str:
    """The name of the journal of an output file."""
    return f".{file}.journal"


def find_metadata(plan: MergePlan) -> Mapping[str, str]:
    """What stands beside the tensors of the first file: by that, tools tell what kind of model it is."""
    path, *_ = plan.models[0].files[0]
    if is_pickled(path):
        return METADATA
    _, metadata = _core.read_header(str(path))
    found: Mapping[str, str] = metadata
    return found


def prepare_file(
    schedule: Schedule,
    path: Path,
    *,
    suffix: str = ".safetensors",
    overwrite: bool = False,
    restart: bool = False,
    reflink: bool = True,
) -> FilePreparation:
    """Check and lock the output; no weight is written yet, and a file that is there stays until the new one is whole.

    Args:
        suffix: how its name ends.
        restart: of an unfinished merge into this file, whatever it was, nothing is kept.

    Raises:
        RecipeError: it is there, is a folder, an input, or no name of a safetensors file; or what is left of another
            merge is.
        ResourceError: it cannot be made, is in use, or the disk cannot hold it.
    """
    refuse_path(schedule.plan, path, suffix, overwrite=overwrite)
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"output folder {folder} cannot be made: {error.strerror or error}") from error
    identity = make_identity(schedule)
    journal = claim(folder, journal_name(path.name))
    try:
        # An unfinished file without a journal is nobody's.
        if restart or journal.identity is None:
            remove_file(folder / temporary_name(path.name))
        take_up(journal, identity, f"output {path}", restart=restart)
        refuse_full_disk(schedule, folder, reflink, journal.recorded)
        journal.begin(identity)
    except BaseException as error:
        journal.__exit__(type(error), error, None)
        raise
    return FilePreparation(path, journal, identity)


def refuse_path(plan: MergePlan, path: Path, suffix: str, *, overwrite: bool) -> None:
    """Refuse an output file that cannot be one, or holds what must not be lost; raises as `prepare_file`."""
    if path.suffix != suffix:
        raise RecipeError(f"output {path}: what is written is a {suffix[1:]} file; name it {path.stem}{suffix}")
    if os.path.isdir(path):
        raise RecipeError(f"output {path} is a folder; name a file in it")
    with suppress(OSError):
        for model in plan.models:
            if any(os.path.samefile(path, file) for file, *_ in model.files):
                raise RecipeError(f"output {path} is the model {str(model.ref)!r}; name another file")
    if os.path.lexists(path) and not overwrite:
        raise RecipeError(f"output {path} is there already; name another file, or give --overwrite to replace it")


def finish_file(schedule: Schedule, preparation: FilePreparation, execution: ExecutionReport) -> MergeReport:
    """Complete an output whose file is in place."""
    sync_folder(preparation.path.parent)
    preparation.journal.remove()
    return MergeReport.collect(schedule, preparation.path.parent, execution, ())
