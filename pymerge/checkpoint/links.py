"""Symbolic links in a model folder: which are followed.

A hub's local cache is made of links (`snapshots/<commit>/x -> ../../blobs/<hash>`), and people build folders of
links to another model's files. So links are followed, weight files wherever they lead: what is there has to be a
safetensors file. But the small files are copied into the output, which gets published. A model from a stranger's
archive could link `tokenizer.json` to a private key. Those may lead out of the folder only to a file of the same
name, or into a hub's cache.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from pymerge.errors import FormatError

__all__ = ["check_link"]

_HASH = re.compile("[0-9a-f]{64}")


def check_link(path: Path) -> None:
    """Look where a small file of a model folder leads; one that is not there leads nowhere.

    Raises:
        FormatError: out of the folder, to something that is not a model's.
    """
    real = Path(os.path.realpath(path))
    home = Path(os.path.realpath(path.parent))
    is_blob = real.parent.name == "blobs" and real.parent.parent.name.startswith("models--")
    # Newer caches keep a file that several models have once: blobs/<2 digits>/<hash>.
    is_shared = (real.parent.parent.name, real.parent.name) == ("blobs", real.name[:2]) and _HASH.fullmatch(real.name)
    if real.is_relative_to(home) or real.name == path.name or is_blob or is_shared:
        return
    raise FormatError(
        f"{path}: is a link to {real}, which is not a file of this model, and would be copied into the output; "
        "if that is meant, put a copy in its place"
    )
