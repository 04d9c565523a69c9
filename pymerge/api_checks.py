"""What merges look at before they touch an output, for those who only ask: devices, small files, the output's place."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pymerge.api_formats import ADAPTER, find_form
from pymerge.backends import resolve_backend, resolve_devices
from pymerge.checkpoint.kinds import GGUF_SUFFIX
from pymerge.output import find_extras
from pymerge.output.fetching import refuse_full_cache
from pymerge.output.rehearsal import rehearse_adapter, rehearse_file, rehearse_folder
from pymerge.output.target import find_target
from pymerge.schedule import Schedule

__all__ = ["check_file", "check_output"]


def check_output(
    schedule: Schedule,
    out: str | os.PathLike[str],
    *,
    out_format: str | None = None,
    gguf_like: str | os.PathLike[str] | None = None,
    backend: str = "auto",
    devices: Sequence[str] = (),
    vram: int | None = None,
    overwrite: bool = False,
    restart: bool = False,
    reflink: bool = True,
    copy_tokenizer: bool = True,
) -> None:
    """Refuse what `merge` and `moe` would refuse of a schedule before they write; nothing is written.

    Arguments and errors are those of `merge`.
    """
    target = find_target(out)
    form = find_form(target, out_format, gguf_like)
    resolve_devices(resolve_backend(backend), devices, vram)
    refuse_full_cache(schedule.plan)
    if form is None:
        find_extras(schedule.plan.models[schedule.plan.donor].folder, tokenizer=copy_tokenizer)
        rehearse_folder(schedule, target, overwrite=overwrite, restart=restart, reflink=reflink)
    elif form == ADAPTER:
        rehearse_adapter(schedule, target, overwrite=overwrite, restart=restart, reflink=reflink)
    else:
        rehearse_file(schedule, target, suffix=GGUF_SUFFIX, overwrite=overwrite, restart=restart, reflink=reflink)


def check_file(
    schedule: Schedule,
    out: str | os.PathLike[str],
    *,
    backend: str = "auto",
    devices: Sequence[str] = (),
    vram: int | None = None,
    overwrite: bool = False,
    restart: bool = False,
    reflink: bool = True,
) -> None:
    """Refuse what `merge_files` would refuse of a schedule before it writes; arguments and errors are those of it."""
    resolve_devices(resolve_backend(backend), devices, vram)
    rehearse_file(schedule, find_target(out), overwrite=overwrite, restart=restart, reflink=reflink)
