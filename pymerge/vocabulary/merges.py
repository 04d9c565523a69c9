"""BPE merges: those that a tokenizer needs to produce entries of another one.

All of them come after its own, and each makes a new entry. So a text is cut as before, and then some of
the pieces are joined: where no new entry is met, nothing changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pymerge.errors import FormatError

__all__ = ["carry_merges", "read_merges", "write_merges"]

Pair = tuple[str, str]

#: Entries of more characters (rulers, runs of spaces) are not tried out: joining takes their square.
_LONGEST = 256


def read_merges(model: Mapping[str, Any], path: Path) -> list[Pair]:
    """The merges of a tokenizer.json, in their order; both forms that the format has had.

    Raises:
        FormatError: they are in neither.
    """
    merges = model.get("merges")
    if not isinstance(merges, list):
        raise FormatError(f"{path}: a BPE model without merges")
    pairs = []
    for number, merge in enumerate(merges):
        halves = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(halves, list) or len(halves) != 2 or not all(isinstance(half, str) for half in halves):
            raise FormatError(f"{path}: merge {number} is not a pair of entries")
        pairs.append((halves[0], halves[1]))
    return pairs


def write_merges(like: Mapping[str, Any], pairs: Sequence[Pair]) -> list[Any]:
    """The merges for a tokenizer.json, in the form that `like` has them in if it can hold them."""
    as_text = any(isinstance(merge, str) for merge in like.get("merges", [])[:1])
    if as_text and not any(" " in left or " " in right for left, right in pairs):
        return [f"{left} {right}" for left, right in pairs]
    return [list(pair) for pair in pairs]


def carry_merges(
    model: Mapping[str, Any],
    pairs: list[Pair],
    new: Sequence[str],
    known: Collection[str],
    donors: Sequence[Sequence[Pair]],
) -> tuple[list[Pair], list[str]]:
    """Merges to append so that the entries `new` are produced.

    Args:
        model: the model that is extended. pairs: its merges.
        new: entries to add.
        known: all entries of the output's model.
        donors: the merges of the tokenizers that the entries come from.

    Returns:
        The merges, and those entries that no text produces even so.
    """
    prefix = model.get("continuing_subword_prefix") or ""
    suffix = model.get("end_of_word_suffix") or ""
    wanted = set(new)
    ranks = {pair: rank for rank, pair in enumerate(pairs)}
    before = len(ranks)
    for pair in (pair for donor in donors for pair in donor):
        made = pair[0] + pair[1][len(prefix) :]
        if made in wanted and pair not in ranks and pair[0] in known and pair[1] in known:
            ranks[pair] = len(ranks)
    missed = []
    # Short ones first: longer ones may be made of them.
    for entry in sorted(new, key=len):
        pieces = _join(_spell(entry, prefix, suffix), ranks, len(prefix)) if len(entry) <= _LONGEST else []
        if len(pieces) == 2 and all(piece in known for piece in pieces):
            ranks[pieces[0], pieces[1]] = len(ranks)
        # A whole word that is an entry is taken without merges where the model says so.
        elif len(pieces) != 1 and not model.get("ignore_merges"):
            missed.append(entry)
    return list(_from(ranks, before)), missed


def _from(ranks: Mapping[Pair, int], first: int) -> Iterator[Pair]:
    return (pair for pair, rank in ranks.items() if rank >= first)


def _spell(entry: str, prefix: str, suffix: str) -> list[str]:
    """The symbols that BPE starts from, one for each character."""
    ends = bool(suffix) and entry.endswith(suffix) and len(entry) > len(suffix)
    text = entry[: -len(suffix)] if ends else entry
    goes_on = bool(prefix) and text.startswith(prefix) and len(text) > len(prefix)
    text = text[len(prefix) :] if goes_on else text
    symbols = [char if place == 0 and not goes_on else prefix + char for place, char in enumerate(text)]
    if ends:
        symbols[-1] += suffix
    return symbols


def _join(symbols: list[str], ranks: Mapping[Pair, int], skipped: int) -> list[str]:
    """Merge symbols as BPE does: the first merge in rank, the leftmost of them, until there is none."""
    while len(symbols) > 1:
        ranked = [
            (ranks[pair], place)
            for place in range(len(symbols) - 1)
            if (pair := (symbols[place], symbols[place + 1])) in ranks
        ]
        if not ranked:
            break
        _, place = min(ranked)
        symbols = [*symbols[:place], symbols[place] + symbols[place + 1][skipped:], *symbols[place + 2 :]]
    return symbols
