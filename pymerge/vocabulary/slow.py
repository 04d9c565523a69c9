"""Folders without a tokenizer.json: transformers makes one, if it is there; no code of the model is run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from pymerge.checkpoint.tokenizer_files import find_tokenizer_files
from pymerge.errors import FormatError

__all__ = ["convert"]

_COMMAND = "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"


def convert(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    """The files of the fast tokenizer that transformers makes of a folder's.

    Args:
        names: of the folder's tokenizer files, for messages.

    Raises:
        FormatError: transformers is not installed, or cannot convert them.
    """
    what = f"{folder}: there is no tokenizer.json, only {', '.join(names)}"
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise FormatError(
            f"{what}; to have them converted, pip install transformers sentencepiece protobuf, or convert them once "
            f"where that is installed: {_COMMAND}"
        ) from None
    with tempfile.TemporaryDirectory(prefix="pymerge-tokenizer-") as made:
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            tokenizer.save_pretrained(made)
        except Exception as error:  # whatever a file makes transformers and its libraries raise
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise FormatError(
                f"{what}, and transformers cannot convert them: {reason} (pip install sentencepiece protobuf may help)"
            ) from None
        files = {name: (Path(made) / name).read_bytes() for name in find_tokenizer_files(Path(made))}
    if "tokenizer.json" not in files:
        raise FormatError(f"{what}, and transformers knows no fast tokenizer of that kind; choose another model's")
    return files
