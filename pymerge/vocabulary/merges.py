"""BPE merges: those that a tokenizer needs to produce entries of another one.

All of them come after its own, and each makes a new entry. So a text is cut as before, and then some of
the pieces are joined: where no new entry is met, nothing changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from pymerge.errors import FormatError

__all__ = ["carry_merges", "join_pair", "read_merges", "write_merges"]

Pair = tuple[str, str]

#: Entries of more characters (rulers, runs of spaces) are not tried out, for joining takes their square; nor are ways
#: sought to join more pieces, which takes their cube.
_LONGEST, _MOST_PIECES = 64, 8


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


def join_pair(model: Mapping[str, Any], pair: Pair) -> str:
    """The entry that a merge makes."""
    return pair[0] + pair[1][len(model.get("continuing_subword_prefix") or "") :]


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
    before = len(pairs)
    following = count(before)
    for pair in (pair for donor in donors for pair in donor):
        if join_pair(model, pair) in wanted and pair not in ranks and pair[0] in known and pair[1] in known:
            ranks[pair] = next(following)
    carried = {join_pair(model, pair) for pair in _from(ranks, before)}
    made_of = frozenset(known) & wanted
    missed = []
    # Short ones first: longer ones may be made of them.
    for entry in sorted(new, key=len):
        if len(entry) > _LONGEST:
            if entry not in carried:
                missed.append(entry)
            continue
        symbols = _spell(entry, prefix, suffix)
        pieces = _join(symbols, ranks, len(prefix))
        if 1 < len(pieces) <= _MOST_PIECES and all(piece in known for piece in pieces):
            for pair in _build(pieces, made_of, len(prefix)):
                ranks.setdefault(pair, next(following))
            pieces = _join(symbols, ranks, len(prefix))
        # A whole word that is an entry is taken without merges where the model says so.
        if len(pieces) != 1 and not model.get("ignore_merges"):
            missed.append(entry)
    return list(_from(ranks, before)), missed


def _build(pieces: Sequence[str], made_of: Collection[str], skipped: int) -> list[Pair]:
    """Merges that join pieces by way of new entries alone, inner ones first; none if that is not possible."""
    # For each run of pieces that can be joined: what it gives, and where its last merge is.
    runs: dict[tuple[int, int], tuple[str, int]] = {(i, i + 1): (piece, 0) for i, piece in enumerate(pieces)}
    for width in range(2, len(pieces) + 1):
        for first in range(len(pieces) - width + 1):
            end = first + width
            for middle in range(first + 1, end):
                if (first, middle) in runs and (middle, end) in runs:
                    joined = runs[first, middle][0] + runs[middle, end][0][skipped:]
                    if joined in made_of:
                        runs[first, end] = (joined, middle)
                        break
    merges: list[Pair] = []
    pending = [(0, len(pieces))] if (0, len(pieces)) in runs else []
    while pending:
        first, end = pending.pop()
        if end - first > 1:
            middle = runs[first, end][1]
            merges.append((runs[first, middle][0], runs[middle, end][0]))
            pending += [(first, middle), (middle, end)]
    return merges[::-1]


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
