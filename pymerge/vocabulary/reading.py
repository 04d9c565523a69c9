"""`read_tokenizer`: a model folder -> its tokenizer, as the libraries that load it would number it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pymerge.checkpoint.json_files import parse_json, read_small_file
from pymerge.checkpoint.links import check_link
from pymerge.checkpoint.tokenizer_files import TEMPLATE_FOLDER, find_tokenizer_files
from pymerge.config.values import ModelRef
from pymerge.errors import FormatError
from pymerge.vocabulary.entries import MAX_ID, describe_kind, read_entries
from pymerge.vocabulary.slow import convert
from pymerge.vocabulary.values import FLAGS, AddedToken, Tokenizer

__all__ = ["FAST", "ROLES", "SETTINGS", "SPECIALS", "read_files", "read_tokenizer", "role_text"]

FAST, SETTINGS, SPECIALS = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
_ADDED = "added_tokens.json"

#: Files that together decide what a tokenizer is.
_DECISIVE = (FAST, SETTINGS, SPECIALS, _ADDED)
#: Files that hold a vocabulary.
_VOCABULARIES = (FAST, "tokenizer.model", "vocab.json", "vocab.txt")

ROLES = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")


def read_files(folder: Path) -> dict[str, bytes]:
    """All tokenizer files of a folder, templates included.

    Raises:
        FormatError: one of them cannot be read, or is a link to something that is not a model's.
    """
    names = find_tokenizer_files(folder)
    if any(name.startswith(TEMPLATE_FOLDER) for name in names):
        check_link(folder / TEMPLATE_FOLDER)
    return {name: read_small_file(folder / name) for name in names}


def read_tokenizer(ref: ModelRef, folder: Path, rows: int | None, known: Sequence[Tokenizer]) -> Tokenizer | None:
    """Read the tokenizer of a model.

    Args:
        rows: of the model's embedding; ids from there on are kept apart.
        known: tokenizers that were read already; one with the same files is not parsed again.

    Returns:
        None if the folder holds no vocabulary.

    Raises:
        FormatError: a file is damaged; or the vocabulary has to be converted, and there is nothing to do it with.
    """
    files = read_files(folder)
    if not any(name in files for name in _VOCABULARIES):
        return None
    if FAST not in files:
        files = {**files, **convert(folder, tuple(files))}
    same = (twin for twin in known if twin.rows == rows and all(twin.files.get(n) == files.get(n) for n in _DECISIVE))
    twin = next(same, None)
    if twin is not None:
        return replace(twin, ref=ref, folder=folder, files=files)
    document = parse_json(folder / FAST, files[FAST])
    settings = _read_settings(folder, files)
    entries = read_entries(document, folder / FAST)
    numbered = {token.content: (token, number) for token, number in _read_added(document, folder)}
    ids = {**entries, **{content: number for content, (_, number) in numbered.items()}}
    added = {content: token for content, (token, _) in numbered.items()}
    taken = set(ids.values())
    # The id that the tokenizers library gives the next added token.
    following = max([len(entries), *(ids[content] + 1 for content in added)])
    for token, wanted in _declared(files, settings, folder):
        if token.content not in ids:
            number = following if wanted is None or wanted in taken else wanted
            ids[token.content] = number
            added[token.content] = token
            taken.add(number)
            following = max(following, number + 1)
    _check_ids(ids, folder)
    own = {token: number for token, number in ids.items() if rows is None or number < rows}
    return Tokenizer(
        ref=ref,
        folder=folder,
        files=files,
        document=document,
        settings=settings,
        kind=describe_kind(document, entries),
        plain={token: number for token, number in own.items() if token not in added},
        added={token: added[token] for token in sorted(own, key=lambda each: own[each]) if token in added},
        ids=own,
        beyond={token: number for token, number in ids.items() if token not in own},
        definitions=added,
        rows=rows,
    )


def role_text(settings: Mapping[str, Any], role: str) -> str | None:
    """The text of a special token, `eos_token` for example; None if it has none."""
    value = settings.get(role)
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else None


def _read_settings(folder: Path, files: Mapping[str, bytes]) -> dict[str, Any]:
    settings = parse_json(folder / SETTINGS, files[SETTINGS]) if SETTINGS in files else {}
    named = parse_json(folder / SPECIALS, files[SPECIALS]) if SPECIALS in files else {}
    return {**{role: named[role] for role in ROLES if role in named and role not in settings}, **settings}


def _read_added(document: Mapping[str, Any], folder: Path) -> Iterator[tuple[AddedToken, int]]:
    listed = document.get("added_tokens") or []
    if not isinstance(listed, list):
        raise FormatError(f"{folder / FAST}: added_tokens is no list")
    for entry in listed:
        number = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < MAX_ID:
            raise FormatError(f"{folder / FAST}: an entry of added_tokens without an id from 0 to {MAX_ID - 1}")
        yield _read_token(entry, folder / FAST), number


def _read_token(entry: Any, path: Path) -> AddedToken:
    content = entry.get("content") if isinstance(entry, dict) else None
    if not isinstance(content, str) or not content:
        raise FormatError(f"{path}: an added token without content")
    return AddedToken(content, **{flag: entry.get(flag) is True for flag in FLAGS})


def _declared(
    files: Mapping[str, bytes], settings: Mapping[str, Any], folder: Path
) -> Iterator[tuple[AddedToken, int | None]]:
    """Tokens that other files than tokenizer.json add, which transformers adds when it loads them."""
    decoder = settings.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        for number, entry in decoder.items():
            if number.isdecimal() and len(number) <= len(str(MAX_ID)):
                yield _read_token(entry, folder / SETTINGS), int(number)
    if _ADDED in files:
        for content, place in parse_json(folder / _ADDED, files[_ADDED]).items():
            if isinstance(place, int) and content:
                yield AddedToken(content, special=content in _special_texts(settings)), place
    for content in _special_texts(settings):
        yield AddedToken(content, special=True), None


def _special_texts(settings: Mapping[str, Any]) -> list[str]:
    return [text for role in ROLES if (text := role_text(settings, role))]


def _check_ids(ids: Mapping[str, int], folder: Path) -> None:
    seen: dict[int, str] = {}
    for token, number in ids.items():
        if not 0 <= number < MAX_ID:
            raise FormatError(f'{folder}: the token "{token}" has the id {number}, expected 0 to {MAX_ID - 1}')
        other = seen.setdefault(number, token)
        if other is not token:
            raise FormatError(
                f'{folder}: the tokenizer gives the id {number} to "{other}" and to "{token}"; take the tokenizer '
                "files from another copy of the model"
            )
