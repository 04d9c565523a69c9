"""What kind of weight file a name is of, by its end; so that readers are loaded only for files that are theirs."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["PICKLED_SUFFIXES", "is_gguf", "is_pickled"]

#: Ends of the names of what torch.save wrote.
PICKLED_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")


def is_gguf(path: Path | str) -> bool:
    """Whether a file or reference is of a GGUF file."""
    return os.fspath(path).endswith(".gguf")


def is_pickled(path: Path | str) -> bool:
    """Whether a file is read as what torch.save wrote."""
    return os.fspath(path).endswith(PICKLED_SUFFIXES)
