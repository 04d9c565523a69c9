"""Special tokens: where models disagree, and the ids that config.json and generation_config.json get."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from pymerge.checkpoint.json_files import read_json
from pymerge.vocabulary.reading import ROLES, role_text
from pymerge.vocabulary.values import Notes, Tokenizer

__all__ = ["CONFIG", "GENERATION", "Ids", "compare_specials", "move_ids", "read_config"]

CONFIG, GENERATION = "config.json", "generation_config.json"
Ids: TypeAlias = "int | list[int] | None"

#: How config.json's keys end that hold ids of tokens.
_ENDINGS = ("_token_id", "_token_index")
#: Keys that are compared, and taken over with a tokenizer; the rest belongs to the model.
_COMPARED = ("bos_token_id", "eos_token_id", "pad_token_id")


def read_config(tokenizer: Tokenizer, name: str) -> Mapping[str, Any]:
    """A model's config.json or generation_config.json; empty if it has none."""
    path = tokenizer.folder / name
    return read_json(path) if path.is_file() else {}


def compare_specials(tokenizers: Sequence[Tokenizer], kept: Tokenizer, notes: Notes) -> None:
    """Remark on special tokens that differ between models; the output has those of `kept`."""
    for role in ROLES[:4]:
        values = [(each, _name_role(each, role)) for each in tokenizers]
        notes.remarks.extend(_disagree(role, values, kept))
    for name in (CONFIG, GENERATION):
        configs = [(each, read_config(each, name)) for each in tokenizers]
        for key in _COMPARED:
            told = [(each, _name_ids(each, config.get(key))) for each, config in configs if key in config]
            notes.remarks.extend(_disagree(f"{key} of {name}", told, kept))
    _check_end(kept, notes)


def _disagree(what: str, values: Sequence[tuple[Tokenizer, str]], kept: Tokenizer) -> Iterator[str]:
    groups: dict[str, list[str]] = {}
    for tokenizer, value in values:
        groups.setdefault(value, []).append(tokenizer.label)
    if len(groups) > 1:
        told = "; ".join(f"{value} in {' and '.join(labels)}" for value, labels in groups.items())
        yield f"models disagree on {what}: {told}. The output has that of {kept.label}"


def _name_role(tokenizer: Tokenizer, role: str) -> str:
    text = role_text(tokenizer.settings, role)
    return "none" if text is None else f'"{text}"'


def _name_ids(tokenizer: Tokenizer, value: Any) -> str:
    """Ids as the tokens they stand for: equal tokens may have different ids."""
    texts = {number: token for token, number in (*tokenizer.beyond.items(), *tokenizer.ids.items())}
    named = [f'"{texts[number]}"' if number in texts else f"{number}, no token" for number in _as_list(value)]
    return " and ".join(named) or "none"


def _as_list(value: Any) -> list[int]:
    listed: Iterable[Any] = value if isinstance(value, list) else (value,)
    return [each for each in listed if isinstance(each, int) and not isinstance(each, bool)]


def _check_end(kept: Tokenizer, notes: Notes) -> None:
    """Generation stops at the ids of the configs, chat templates end turns with the tokenizer's eos_token."""
    text = role_text(kept.settings, "eos_token")
    known = [
        number for name in (GENERATION, CONFIG) for number in _as_list(read_config(kept, name).get("eos_token_id"))
    ]
    number = kept.ids.get(text) if text else None
    if number is not None and known and number not in known:
        notes.remarks.append(
            f'{kept.label} itself: eos_token is "{text}" ({number}), which neither {CONFIG} nor {GENERATION} has as '
            f"eos_token_id ({', '.join(map(str, known))}): generation does not stop there"
        )


def move_ids(donor: Tokenizer, kept: Tokenizer, ids: Mapping[str, int], name: str, notes: Notes) -> dict[str, Ids]:
    """Ids that have to change in a config file.

    Args:
        donor: of the file.
        kept: whose tokenizer the output has.
        ids: the output's tokens.
        name: of the file.

    Returns:
        Key -> new value; None where the token is gone.
    """
    before = read_config(donor, name)
    source = read_config(kept, name) if kept is not donor else {}
    texts = {number: token for token, number in donor.ids.items()}
    moved: dict[str, Ids] = {}
    for key in dict.fromkeys((*before, *(key for key in _COMPARED if key in source))):
        value = before.get(key)
        if not key.endswith(_ENDINGS) or (kept is donor and not _is_lost(value, donor)):
            continue
        new: Ids
        if kept is donor:
            new = _keep(value, set(donor.ids.values()))
        elif key in source:
            new = _keep(source[key], set(ids.values()))
        else:
            new = _translate(value, texts, ids) if _as_list(value) else value
            if new is None and key in _COMPARED:
                new = ids.get(role_text(kept.settings, key.removesuffix("_id")) or "")
        if new != value:
            moved[key] = new
            if value is not None and new is None:
                notes.remarks.append(f"{key} = {value} of {name} is no token of the output: it is left out")
    return moved


def _is_lost(value: Any, donor: Tokenizer) -> bool:
    """Tell if a value names a row that its own model lacks; in the output another token may have it."""
    return donor.rows is not None and any(number >= donor.rows for number in _as_list(value))


def _keep(value: Any, known: set[int]) -> Ids:
    listed = [number for number in _as_list(value) if number in known]
    return listed if isinstance(value, list) and listed else listed[0] if listed else None


def _translate(value: Any, texts: Mapping[int, str], ids: Mapping[str, int]) -> Ids:
    found = [ids[texts[number]] for number in _as_list(value) if texts.get(number) in ids]
    return found if isinstance(value, list) and found else found[0] if found else None
