"""What kind of weight file a name is of, by its end; so that readers are loaded only for files that are theirs."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["GGUF_KINDS", "GGUF_SUFFIX", "PICKLED_SUFFIXES", "is_gguf", "is_pickled"]

#: Ends of the names of what torch.save wrote.
PICKLED_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
GGUF_SUFFIX = ".gguf"
#: Types that matrices of a GGUF file may be written in.
GGUF_KINDS = ("F32", "F16", "BF16", "Q8_0")


def is_gguf(path: Path | str) -> bool:
    """Whether a file or reference is of a GGUF file."""
    return os.fspath(path).endswith(GGUF_SUFFIX)


def is_pickled(path: Path | str) -> bool:
    """Whether a file is read as what torch.save wrote."""
    return os.fspath(path).endswith(PICKLED_SUFFIXES)
