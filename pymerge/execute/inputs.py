"""Whether the models on disk are still the ones that a plan was made for."""

from __future__ import annotations

from collections.abc import Iterable

from pymerge.checkpoint.values import Checkpoint
from pymerge.errors import FormatError

__all__ = ["check_unchanged"]


def check_unchanged(models: Iterable[Checkpoint]) -> None:
    """Look at size and time of every weight file; nothing is read.

    A file that comes from a hub may not be here yet, or have come meanwhile: it has its size, and no time to compare.

    Raises:
        FormatError: a file is gone, or is not the one whose header was read.
    """
    for model in models:
        for path, size, modified in model.files:
            arriving = not modified and path in model.remote
            if arriving and not path.exists():
                continue
            try:
                status = path.stat()
            except OSError as error:
                raise FormatError(f"{path}: cannot be read any more: {error.strerror or error}") from None
            if status.st_size != size or not (arriving or status.st_mtime_ns == modified):
                raise FormatError(
                    f"{path}: changed since the merge was planned (it had {size} bytes, now {status.st_size}); "
                    "wait until nothing writes to it, then run the command again"
                )
