"""One naming for models that were saved with and without a wrapping module (`transformer.h`, `h`)."""

from __future__ import annotations

from dataclasses import replace

from pymerge.checkpoint.names import WRAPPERS
from pymerge.checkpoint.values import Checkpoint

__all__ = ["align_names"]


def align_names(checkpoint: Checkpoint, like: Checkpoint) -> Checkpoint:
    """Return `checkpoint` with its tensors keyed by the names that `like` uses for them.

    Only a wrapper in front is added or removed, and only where the new name exists in `like`;
    a stored tensor keeps its own name in its `name`.
    """
    known = like.tensors
    if all(name in known for name in checkpoint.tensors):
        return checkpoint
    renamed = {_find_name(name, checkpoint, like): stored for name, stored in checkpoint.tensors.items()}
    return checkpoint if renamed.keys() == checkpoint.tensors.keys() else replace(checkpoint, tensors=renamed)


def _find_name(name: str, checkpoint: Checkpoint, like: Checkpoint) -> str:
    if name in like.tensors:
        return name
    for wrapper in WRAPPERS:
        other = name.removeprefix(wrapper) if name.startswith(wrapper) else wrapper + name
        if other in like.tensors and other not in checkpoint.tensors:
            return other
    return name
