"""Bytes of a file, copied: unlike a mapping, a file that is cut meanwhile is an error, not the end of the process."""

from __future__ import annotations

import os
from typing import Any

from pymerge.errors import FormatError, ResourceError

__all__ = ["read_into"]


def read_into(path: str, offset: int, out: Any) -> None:
    """Fill `out`, a writable array of bytes, with what stands at `offset` of a file.

    Raises:
        FormatError: the file ends before that.
        ResourceError: it cannot be read.
    """
    view = memoryview(out)
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            while view:
                got = os.preadv(descriptor, [view], offset)
                if not got:
                    raise FormatError(
                        f"{path}: the file has become shorter while it was read; wait until nothing writes to it, "
                        f"then run the command again (at byte {offset})"
                    )
                view, offset = view[got:], offset + got
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ResourceError(f"{path}: cannot read: {error.strerror or error}") from None
