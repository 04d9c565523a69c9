"""What a merge looks at before it writes, looked at without writing: for those who ask whether it would work."""

from __future__ import annotations

from pathlib import Path

from pymerge.checkpoint.adapters import WEIGHTS
from pymerge.execute.journal import JOURNAL
from pymerge.output.adapter import check_adapter_folder
from pymerge.output.folder import check_folder, list_files, refuse_full_disk, refuse_other
from pymerge.output.identity import make_identity
from pymerge.output.single_file import journal_name, refuse_path
from pymerge.output.target import peek, refuse_folders, refuse_place
from pymerge.schedule.values import Schedule

__all__ = ["rehearse_adapter", "rehearse_file", "rehearse_folder"]


def rehearse_folder(
    schedule: Schedule, folder: Path, *, overwrite: bool = False, restart: bool = False, reflink: bool = True
) -> None:
    """Refuse what `prepare` would refuse, and raise as it does."""
    check_folder(schedule.plan, folder, overwrite=overwrite)
    refuse_folders(folder, list_files(schedule))
    _rehearse(schedule, folder, folder / JOURNAL, f"output folder {folder}", restart, reflink)


def rehearse_adapter(
    schedule: Schedule, folder: Path, *, overwrite: bool = False, restart: bool = False, reflink: bool = True
) -> None:
    """Refuse what `prepare_adapter` would refuse, and raise as it does."""
    check_adapter_folder(schedule.plan, folder, overwrite=overwrite)
    _rehearse(
        schedule, folder, folder / journal_name(WEIGHTS[0]), f"output {folder / WEIGHTS[0]}", restart, reflink
    )  # fmt: skip


def rehearse_file(
    schedule: Schedule,
    path: Path,
    *,
    suffix: str = ".safetensors",
    overwrite: bool = False,
    restart: bool = False,
    reflink: bool = True,
) -> None:
    """Refuse what `prepare_file` would refuse, and raise as it does."""
    refuse_path(schedule.plan, path, suffix, overwrite=overwrite)
    _rehearse(schedule, path.parent, path.parent / journal_name(path.name), f"output {path}", restart, reflink)


def _rehearse(schedule: Schedule, folder: Path, journal: Path, where: str, restart: bool, reflink: bool) -> None:
    refuse_place(folder)
    identity, recorded = (None, frozenset()) if restart else peek(journal)
    if identity is not None:
        refuse_other(identity, make_identity(schedule), where)
    refuse_full_disk(schedule, folder, reflink, recorded)
