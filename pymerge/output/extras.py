"""The files beside the weights that a model needs to be used: tokenizer, templates, processors."""

from __future__ import annotations

from pathlib import Path

from pymerge.checkpoint.json_files import read_json
from pymerge.checkpoint.links import check_link
from pymerge.checkpoint.tokenizer_files import COMPANIONS, GENERATION, find_tokenizer_files
from pymerge.output.files import copy_file, write_bytes, write_json
from pymerge.plan.values import MergePlan

__all__ = ["copy_extras", "find_extras", "write_extras"]


def write_extras(plan: MergePlan, folder: Path, *, tokenizer: bool) -> tuple[str, ...]:
    """Write a merge's small files: the donor's, or those of a vocabulary of its own; returns their names.

    Args:
        tokenizer: also the tokenizer's files and the chat templates; what the recipe itself asks for is written anyway.
    """
    donor, vocabulary = plan.models[plan.donor].folder, plan.vocabulary
    if vocabulary is None:
        return copy_extras(donor, folder, tokenizer=tokenizer)
    names = copy_extras(donor, folder, tokenizer=False)
    if GENERATION in names and vocabulary.generation_ids:
        settings = {**read_json(donor / GENERATION), **vocabulary.generation_ids}
        write_json(folder / GENERATION, {key: value for key, value in settings.items() if value is not None})
    for name, content in vocabulary.files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_bytes(folder / name, content)
    return (*names, *vocabulary.files)


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
