"""The tokenizer's files of the output: those of one model, with what a blend changes written into each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymerge.checkpoint.json_files import parse_json
from pymerge.vocabulary.encoding import dump, dump_long, encode
from pymerge.vocabulary.entries import write_entries
from pymerge.vocabulary.merges import carry_merges, join_pair, read_merges, write_merges
from pymerge.vocabulary.reading import FAST, ROLES, SETTINGS, SPECIALS, role_text
from pymerge.vocabulary.union import Blend
from pymerge.vocabulary.values import FLAGS, AddedToken, Notes, Tokenizer, list_some

__all__ = ["write_files"]

#: Lists of special tokens besides the roles.
_LISTS = ("additional_special_tokens", "extra_special_tokens")


def write_files(blend: Blend, notes: Notes) -> dict[str, bytes]:
    """The tokenizer's files; unchanged, to the byte, where the blend changes nothing.

    Raises:
        FormatError: a file of a model is damaged, or cannot hold what is to be written.
    """
    like = blend.like
    files = dict(like.files)
    if not blend.changed:
        return files
    model = dict(like.document["model"])
    added = {
        token: blend.added.get(token) or like.added[token]
        for token in blend.ids
        if token in blend.added or token in like.added
    }
    _write_model(model, blend, added, notes)
    listed = [{"id": blend.ids[token], **_flags(added[token])} for token in sorted(added, key=blend.ids.__getitem__)]
    files[FAST] = dump_long({**like.document, "added_tokens": listed, "model": model})
    removed = frozenset(like.beyond)
    for name in (SETTINGS, SPECIALS):
        if name in files:
            files[name] = _write_settings(like, name, added, blend.ids, removed, notes)
    if "added_tokens.json" in files:
        files["added_tokens.json"] = dump({token: blend.ids[token] for token in added if token not in _names(model)})
    _write_old_files(files, like, model, notes)
    return files


def _write_model(model: dict[str, Any], blend: Blend, added: Mapping[str, AddedToken], notes: Notes) -> None:
    like = blend.like
    path = like.folder / FAST
    removed = frozenset(like.beyond)
    new = [(token, blend.ids[token], _find_score(source, token)) for token, source in blend.plain.items()]
    entries = (_names(model) - removed) | set(blend.plain)
    held = {} if _keeps_numbers(entries, added, blend.ids) else {token: blend.ids[token] for token in added}
    model["vocab"] = write_entries(model, removed, new, held, path)
    if "merges" not in model:
        return
    pairs = [p for p in read_merges(model, path) if not removed.intersection((*p, join_pair(model, p)))]
    donors = {id(source): source for source in blend.plain.values()}
    carried, missed = carry_merges(
        model,
        pairs,
        list(blend.plain),
        _names(model),
        [read_merges(source.document["model"], source.folder / FAST) for source in donors.values()],
    )
    model["merges"] = write_merges(like.document["model"], [*pairs, *carried])
    if missed:
        notes.remarks.append(
            f"{len(missed)} of the added entries are never produced from text, for what they are made of are no "
            f"entries: {list_some(missed)}"
        )


def _names(model: Mapping[str, Any]) -> set[str]:
    vocab = model["vocab"]
    return set(vocab) if isinstance(vocab, dict) else {entry[0] for entry in vocab}


def _find_score(source: Tokenizer, token: str) -> float | None:
    vocab = source.document["model"]["vocab"]
    return float(vocab[source.plain[token]][1]) if isinstance(vocab, list) else None


def _keeps_numbers(entries: set[str], added: Mapping[str, AddedToken], ids: Mapping[str, int]) -> bool:
    """Tell if a loader gives added tokens their ids: those that are no entries, it numbers on from the entries."""
    following = len(entries)
    for token in sorted(added, key=ids.__getitem__):
        if token not in entries and ids[token] != following:
            return False
        following = max(following, ids[token] + 1)
    return True


def _flags(token: AddedToken) -> dict[str, Any]:
    return {"content": token.content, **{flag: getattr(token, flag) for flag in FLAGS}}


def _write_settings(
    like: Tokenizer,
    name: str,
    added: Mapping[str, AddedToken],
    ids: Mapping[str, int],
    removed: frozenset[str],
    notes: Notes,
) -> bytes:
    """tokenizer_config.json or special_tokens_map.json: the table of added tokens, and no token that is gone."""
    settings = parse_json(like.folder / name, like.files[name])
    if "added_tokens_decoder" in settings:
        settings["added_tokens_decoder"] = {
            str(ids[token]): _flags(added[token]) for token in sorted(added, key=ids.__getitem__)
        }
    for role in ROLES:
        if (text := role_text(settings, role)) in removed and text not in ids:
            del settings[role]
            if name == SETTINGS:
                notes.remarks.append(f'{role} "{text}" is gone with its id; set another one in {SETTINGS}')
    for key in _LISTS:
        if isinstance(settings.get(key), list):
            settings[key] = [each for each in settings[key] if _text(each) not in removed or _text(each) in ids]
    return dump(settings)


def _text(value: Any) -> str:
    return str(value.get("content") if isinstance(value, dict) else value)


def _write_old_files(files: dict[str, bytes], like: Tokenizer, model: Mapping[str, Any], notes: Notes) -> None:
    """Files that say the same as tokenizer.json in other ways: rewritten, or left out where they cannot say it."""
    vocab = model["vocab"]
    pairs = read_merges(model, like.folder / FAST) if "merges" in model else []
    rewritten: dict[str, bytes] = {}
    if isinstance(vocab, dict):
        rewritten["vocab.json"] = dump_long(vocab)
        if list(vocab.values()) == list(range(len(vocab))):
            rewritten["vocab.txt"] = encode("".join(f"{token}\n" for token in vocab))
    if not any(" " in half for pair in pairs for half in pair):
        rewritten["merges.txt"] = encode("".join(["#version: 0.2\n", *(f"{left} {right}\n" for left, right in pairs)]))
    old = [name for name in ("vocab.json", "vocab.txt", "merges.txt", "tokenizer.model") if name in files]
    files.update({name: rewritten[name] for name in old if name in rewritten})
    left = [name for name in old if name not in rewritten]
    for name in left:
        del files[name]
    if left:
        notes.remarks.append(
            f"{' and '.join(left)}: left out, without the changed tokens; tokenizer.json has them, and is loaded"
        )
