"""The entries of a tokenizer's model, by kind: reading them, and writing them with some more.

tokenizer.json holds a model of one of four types. BPE, WordPiece and WordLevel map entries to ids; Unigram lists them
with their scores, and an entry's place is its id.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pymerge.errors import FormatError

__all__ = ["MAX_ID", "describe_kind", "first_free", "read_entries", "write_entries"]

#: No vocabulary comes near; a greater id would ask for memory by itself.
MAX_ID = 1 << 24

#: What a model writes around pieces inside, and at the end, of words.
_MARKS = ("continuing_subword_prefix", "end_of_word_suffix")
_SPACE = "\u2581"  # how SentencePiece writes a space


def read_entries(document: Mapping[str, Any], path: Path) -> dict[str, int]:
    """Entries of the model in a tokenizer.json, by id.

    Raises:
        FormatError: they are not there, or not as their kind has them.
    """
    model = document.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    for key in _MARKS:
        if isinstance(model, dict) and not isinstance(model.get(key), (str, type(None))):
            raise FormatError(f"{path}: model.{key} is no text")
    if isinstance(vocab, list):
        return _read_scored(vocab, path)
    if not isinstance(vocab, dict):
        raise FormatError(f"{path}: model.vocab is missing, or neither an object nor a list")
    for token, number in vocab.items():
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < MAX_ID:
            raise FormatError(f'{path}: model.vocab gives "{token}" the id {number!r}, expected 0 to {MAX_ID - 1}')
    return dict(sorted(vocab.items(), key=lambda item: item[1]))


def _read_scored(vocab: list[Any], path: Path) -> dict[str, int]:
    entries: dict[str, int] = {}
    for number, entry in enumerate(vocab):
        if (
            not isinstance(entry, list)
            or len(entry) != 2
            or not isinstance(entry[0], str)
            or not isinstance(entry[1], (int, float))
            or not math.isfinite(entry[1])
        ):
            raise FormatError(f"{path}: entry {number} of model.vocab is not a text and its score")
        # Of two equal entries the library knows the later one; ids stay those of the list.
        entries[entry[0]] = number
    return entries


def describe_kind(document: Mapping[str, Any], entries: Mapping[str, int]) -> str:
    """Name what two tokenizers must have in common for entries of one to mean something in the other."""
    model = document["model"]
    kind = _find_type(model)
    if kind == "BPE":
        steps = [document.get(key) for key in ("normalizer", "pre_tokenizer", "decoder")]
        if any(_holds_type(step, "ByteLevel") for step in steps):
            kind = "byte-level BPE"
        elif any(entry.startswith(_SPACE) for entry in entries):
            kind = f"BPE with {_SPACE} for spaces"
    marks = [model.get(key) for key in _MARKS]
    marked = " and ".join(f'"{mark}"' for mark in marks if mark)
    return f"{kind} with {marked}" if marked else kind


def _find_type(model: Mapping[str, Any]) -> str:
    """The model's type, which the files of old releases leave out."""
    if isinstance(model.get("type"), str):
        return str(model["type"])
    if isinstance(model["vocab"], list):
        return "Unigram"
    return "BPE" if "merges" in model else "WordPiece" if "max_input_chars_per_word" in model else "WordLevel"


def _holds_type(step: Any, name: str) -> bool:
    """Tell if a step of the tokenizer, or one of a sequence of them, is of a type."""
    if isinstance(step, list):
        return any(_holds_type(each, name) for each in step)
    return isinstance(step, dict) and (step.get("type") == name or any(_holds_type(v, name) for v in step.values()))


def first_free(document: Mapping[str, Any], ids: Mapping[str, int], rows: int | None) -> int:
    """The first id that a new token may have: a list cannot have gaps, so of Unigram the first after it."""
    vocab = document["model"]["vocab"]
    if isinstance(vocab, list):
        return len(vocab) if rows is None else min(len(vocab), rows)
    return max(ids.values(), default=-1) + 1


def write_entries(
    model: Mapping[str, Any],
    removed: frozenset[str],
    new: Sequence[tuple[str, int, float | None]],
    held: Mapping[str, int],
    path: Path,
) -> dict[str, int] | list[list[Any]]:
    """`model.vocab` of the output.

    Args:
        model: the model of the tokenizer that is extended.
        removed: entries that are left out.
        new: entries with ids and, for Unigram, scores.
        held: added tokens that must stand among the entries to keep their ids.

    Raises:
        FormatError: Unigram entries would leave a gap.
    """
    vocab = model["vocab"]
    if isinstance(vocab, dict):
        kept = {token: number for token, number in vocab.items() if token not in removed}
        kept.update({token: number for token, number, _ in new})
        kept.update({token: number for token, number in held.items() if token not in kept})
        return dict(sorted(kept.items(), key=lambda item: item[1]))
    scored = [entry for entry in vocab if entry[0] not in removed]
    # The least score decides what an unknown character costs: it stays what it is.
    least = min((float(entry[1]) for entry in scored), default=0.0)
    places: dict[int, list[Any]] = {
        number: [token, least if score is None else max(score, least)] for token, number, score in new
    }
    known = {entry[0] for entry in scored}
    places.update({number: [token, least] for token, number in held.items() if token not in known})
    for number in sorted(places):
        if number != len(scored):
            raise FormatError(f"{path}: a Unigram tokenizer whose ids have a gap before {number} cannot be extended")
        scored.append(places[number])
    return scored
