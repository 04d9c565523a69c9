"""The files beside the weights that a model needs to be used: tokenizer, templates, processors."""

from __future__ import annotations

from pathlib import Path

from pymerge.checkpoint.links import check_link
from pymerge.checkpoint.tokenizer_files import COMPANIONS, find_tokenizer_files
from pymerge.output.files import copy_file

__all__ = ["copy_extras", "find_extras"]


def copy_extras(donor: Path, folder: Path, *, tokenizer: bool) -> tuple[str, ...]:
    """Copy what `donor` has of the files above; returns the names, relative to the folder.

    Args:
        tokenizer: also the tokenizer's files and the chat templates.
    """
    names = find_extras(donor, tokenizer=tokenizer)
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        copy_file(donor / name, folder / name)
    return names


def find_extras(donor: Path, *, tokenizer: bool) -> tuple[str, ...]:
    """Names of the files that `copy_extras` copies.

    Raises:
        FormatError: one of them is a link to something that is not a model's.
    """
    names = [name for name in COMPANIONS if (donor / name).is_file()]
    if tokenizer:
        names += find_tokenizer_files(donor)
    for name in names:
        check_link(donor / Path(name).parts[0])
        check_link(donor / name)
    return tuple(names)
