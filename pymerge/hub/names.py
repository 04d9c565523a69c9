"""Which files of a hub's repository are a model's, or an adapter's; all others are never asked for."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from pymerge.checkpoint import adapters
from pymerge.checkpoint.folder import PICKLED, SINGLE
from pymerge.checkpoint.index import INDEX, PICKLED_INDEX
from pymerge.checkpoint.tokenizer_files import COMPANIONS, TEMPLATE_FOLDER, TOKENIZER

__all__ = ["choose_index", "choose_small", "choose_weights"]

_TEMPLATE = re.compile(rf"{TEMPLATE_FOLDER}/[\w.-]+\.jinja")
_PLAIN = re.compile(r"[\w][\w.+-]*")


def choose_index(names: Collection[str]) -> str | None:
    """The index that a folder of these files would be read by; see pymerge/checkpoint/folder.py."""
    for index, single in ((INDEX, SINGLE), (PICKLED_INDEX, PICKLED)):
        if index in names:
            return index
        if single in names:
            return None
    return None


def choose_small(names: Collection[str], *, adapter: bool) -> list[str]:
    """The files besides the weights, the one that must be there first."""
    if adapter:
        return [adapters.CONFIG]
    index = choose_index(names)
    wanted = ["config.json", *([index] if index else []), *TOKENIZER, *COMPANIONS]
    templates = sorted(name for name in names if _TEMPLATE.fullmatch(name))
    return ["config.json", *(name for name in [*wanted[1:], *templates] if name in names)]


def choose_weights(names: Collection[str], index: Mapping[str, Any] | None, *, adapter: bool) -> list[str]:
    """The weight files.

    Args:
        index: what the chosen index says. Names in it that the repository has not are for its reader to refuse.
    """
    if adapter:
        return [name for name in adapters.WEIGHTS if name in names][:1]
    if index is None:
        return [name for name in (SINGLE, PICKLED) if name in names][:1]
    listed = index.get("weight_map")
    files = dict.fromkeys(listed.values()) if isinstance(listed, dict) and _are_names(listed.values()) else {}
    return [name for name in files if name in names and _PLAIN.fullmatch(name)]


def _are_names(values: Collection[Any]) -> bool:
    return all(isinstance(value, str) for value in values)
