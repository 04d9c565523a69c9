"""Which of a plan's weight files are not here yet."""

from __future__ import annotations

import os

from pymerge.checkpoint.remote import RemoteFile
from pymerge.checkpoint.sources import list_stored
from pymerge.plan.values import MergePlan, TensorTask

__all__ = ["list_files", "list_missing"]


def list_missing(plan: MergePlan) -> dict[str, RemoteFile]:
    """The files of a hub that tasks read and that are still to come, by path; without any, next to no work."""
    remote = {str(path): file for model in plan.models for path, file in model.remote.items()}
    absent = {path: file for path, file in remote.items() if not os.path.exists(path)}
    if not absent:
        return {}
    read = {path for task in plan.tasks for path in list_files(task)}
    return {path: file for path, file in absent.items() if path in read}


def list_files(task: TensorTask) -> list[str]:
    """The files that a task's sources are read from, each once."""
    return list(dict.fromkeys(stored.path for source in task.sources for stored in list_stored(source)))
