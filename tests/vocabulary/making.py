"""Small model folders with tokenizers of every kind, made by the tokenizers library; what to ask of the outcome."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from pymerge.config import ModelRef, load_recipe
from pymerge.vocabulary import Vocabulary, make_vocabulary

ALPHABET = (*"abcdefgh", "\u0120")
#: Merges and what they make: ab, cd, abcd, ef.
MERGES = (("a", "b"), ("c", "d"), ("ab", "cd"), ("e", "f"))
END = "<|end|>"

Added = str | tuple[str, dict[str, Any]]


def bpe(
    merges: Sequence[tuple[str, str]] = MERGES,
    *,
    alphabet: Iterable[str] = ALPHABET,
    order: Sequence[int] | None = None,
) -> tokenizers.Tokenizer:
    """Byte-level BPE; `order[i]` is the id of the i-th entry."""
    entries = list(dict.fromkeys((*alphabet, *(left + right for left, right in merges))))
    ids = order or range(len(entries))
    made = tokenizers.Tokenizer(models.BPE(vocab=dict(zip(entries, ids, strict=True)), merges=list(merges)))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def unigram(scores: Mapping[str, float]) -> tokenizers.Tokenizer:
    """Unigram whose first entry is the unknown token."""
    made = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), *scores.items()], unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    return made


def wordpiece(entries: Sequence[str]) -> tokenizers.Tokenizer:
    """WordPiece over `entries`, after the unknown token."""
    vocab = {entry: number for number, entry in enumerate(("[UNK]", *entries))}
    made = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def write_model(
    folder: Path,
    tokenizer: tokenizers.Tokenizer | None,
    *,
    added: Sequence[Added] = (END,),
    settings: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    generation: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
) -> Path:
    """A model folder with tokenizer files and configs, without weights; added tokens are special unless they say."""
    folder.mkdir(parents=True)
    if tokenizer is not None:
        tokenizer.add_tokens([_added(each) for each in added])
        tokenizer.save(str(folder / "tokenizer.json"))
        said = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, **(settings or {})}
        (folder / "tokenizer_config.json").write_text(json.dumps(said))
    (folder / "config.json").write_text(json.dumps(dict(config or {})))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(dict(generation)))
    for name, text in (files or {}).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def _added(token: Added) -> tokenizers.AddedToken:
    content, flags = (token, {}) if isinstance(token, str) else token
    return tokenizers.AddedToken(content, **{"normalized": False, "special": True, **flags})


def make(
    folder: Path, rows: Mapping[str, int], text: str, *, others: Mapping[str, int | None] | None = None
) -> Vocabulary:
    """The vocabulary for a linear merge of the models that `rows` names, in order; `text` is the rest of the recipe."""
    recipe = f"merge_method: linear\nmodels: [{', '.join(f'{{model: {name}}}' for name in rows)}]\n{text}\n"
    refs = {name: ModelRef(name) for name in (*rows, *(others or {}))}
    made = make_vocabulary(
        load_recipe(recipe),
        {refs[name]: folder / name for name in rows},
        {refs[name]: count for name, count in {**rows, **(others or {})}.items() if count is not None},
        {refs[name]: folder / name for name in others or {}},
    )
    assert made is not None
    check(made, {**rows, **(others or {})})
    return made


def check(made: Vocabulary, rows: Mapping[str, int | None]) -> None:
    """What holds of every vocabulary: ids are a bijection into the rows, and choices point into their parts."""
    assert len(set(made.ids.values())) == len(made.ids)
    assert made.size == max(made.ids.values(), default=made.size - 1) + 1 <= made.rows
    for ref, (choice, parts) in made.choices.items():
        assert parts[0] == ref
        assert len(choice.starts) == made.rows + 1
        assert list(choice.starts) == sorted(choice.starts)
        assert len(choice.parts) == len(choice.rows) == choice.starts[-1]
        for part, row in zip(choice.parts, choice.rows, strict=True):
            count = rows[str(parts[part])]
            assert count is not None
            assert -1 <= row < count


def sources(made: Vocabulary, model: str, rows: int) -> list[list[tuple[str, int]]]:
    """For each row of the output, the rows of models that it is the mean of in `model`, which has `rows` rows."""
    found = made.choices.get(ModelRef(model))
    if found is None:
        assert made.rows == rows
        return [[(model, row)] for row in range(rows)]
    choice, parts = found
    return [
        [(str(parts[choice.parts[k]]), choice.rows[k]) for k in range(choice.starts[row], choice.starts[row + 1])]
        for row in range(made.rows)
    ]


def row_of(made: Vocabulary, token: str, model: str, rows: int) -> list[tuple[str, int]]:
    """Where the row of a token comes from in a model that has `rows` rows."""
    return sources(made, model, rows)[made.ids[token]]


def load(made: Vocabulary, folder: Path) -> tokenizers.Tokenizer:
    """Write the files, and load tokenizer.json with the library: every token has the id that was promised."""
    for name, content in made.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    loaded = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert loaded.get_vocab() == dict(made.ids)
    return loaded
