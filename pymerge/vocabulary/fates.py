"""What happened to added tokens, a line each: for remarks, and for the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pymerge.vocabulary.rows import Row
from pymerge.vocabulary.union import Blend
from pymerge.vocabulary.values import Notes, Tokenizer

__all__ = ["remark_fates", "tell_fates"]

#: Lines among the remarks; some families have a thousand reserved tokens.
_MOST_LINES = 16


def tell_fates(
    blend: Blend,
    merged: Sequence[Tokenizer],
    defaults: Mapping[str, tuple[Row, ...]],
    forced: frozenset[str],
) -> dict[str, str]:
    """Say of every added token that some model lacks, or whose row is forced, where its rows come from."""
    defined = dict.fromkeys(token for each in (blend.like, *merged) for token in each.definitions)
    fates = {}
    for token in dict.fromkeys((*defined, *blend.added, *forced)):
        if token not in blend.ids:
            fates[token] = "left out"
        elif token in forced or any(token not in each.ids for each in merged):
            fates[token] = f"id {blend.ids[token]}: {_tell_rows(token, merged, defaults[token], forced)}"
    return fates


def _tell_rows(token: str, merged: Sequence[Tokenizer], default: Sequence[Row], forced: frozenset[str]) -> str:
    own = [] if token in forced else [each.label for each in merged if token in each.ids]
    filled = [each.label for each in merged if each.label not in own]
    rows = " and ".join(f'row {row} of "{ref}"' for ref, row in default)
    source = "zeros" if not default else f"the mean of {rows}" if len(default) > 1 else rows
    told = [f"its own row in {' and '.join(own)}"] if own else []
    return ", ".join([*told, f"{source} in {' and '.join(filled)}"])


def remark_fates(fates: Mapping[str, str], notes: Notes) -> None:
    """Put the first of them among the remarks."""
    lines = [f'"{token}": {fate}' for token, fate in fates.items()]
    notes.remarks.extend(lines[:_MOST_LINES])
    if lines[_MOST_LINES:]:
        notes.remarks.append(f"and so on for {len(lines) - _MOST_LINES} more added tokens")
