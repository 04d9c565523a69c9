"""Unions of tokenizers of every kind: what is added is produced, and nothing else changes."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vocabulary.making import ALPHABET, END, MERGES, bpe, load, make, sources, unigram, wordpiece, write_model

from pymerge.errors import FormatError, RecipeError

LETTERS = "abcde"
QUICK = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def merges(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Merges of a BPE model over LETTERS, each made of what is there already."""
    entries, made = list(LETTERS), []
    for _ in range(draw(st.integers(0, 12))):
        pair = draw(st.tuples(st.sampled_from(entries), st.sampled_from(entries)))
        if "".join(pair) not in entries:
            entries.append("".join(pair))
            made.append(pair)
    return made


def size(tokenizer: tokenizers.Tokenizer) -> int:
    return max(tokenizer.get_vocab().values()) + 1


def clear(folder: Path) -> Path:
    for path in folder.iterdir():
        shutil.rmtree(path)
    return folder


@QUICK
@given(own=merges(), other=merges(), texts=st.lists(st.text(LETTERS, max_size=20), max_size=5), data=st.data())
def test_bpe_texts_are_cut_as_before_and_then_joined_to_new_entries(
    tmp_path: Path, own: list[Any], other: list[Any], texts: list[str], data: st.DataObject
) -> None:
    base, donor = bpe(own, alphabet=LETTERS), None
    count = len({*LETTERS, *map("".join, other)})
    order = data.draw(st.permutations(range(count)))
    donor = bpe(other, alphabet=LETTERS, order=order)
    clear(tmp_path)
    write_model(tmp_path / "a", base)
    write_model(tmp_path / "b", donor)
    made = make(tmp_path, {"a": size(base), "b": size(donor)}, "tokenizer_source: union")
    assert set(made.ids) == {*base.get_vocab(), *donor.get_vocab()}
    merged = load(made, tmp_path / "out")
    for text in texts:
        before, after = base.encode(text), merged.encode(text)
        cuts = {start for start, _ in before.offsets} | {len(text)}
        assert "".join(after.tokens) == text
        assert all(start in cuts for start, _ in after.offsets)
        kept = [
            (token, place)
            for token, place in zip(after.tokens, after.offsets, strict=True)
            if token in base.get_vocab()
        ]
        assert set(kept) <= set(zip(before.tokens, before.offsets, strict=True))
    new = [token for token in donor.get_vocab() if token not in base.get_vocab()]
    produced = sum(merged.encode(token).tokens == [token] for token in new)
    missed = next((int(remark.split()[0]) for remark in made.remarks if "never produced" in remark), 0)
    assert produced == len(new) - missed


@QUICK
@given(own=merges(), data=st.data())
def test_a_model_with_shuffled_ids_leads_back_to_its_original(
    tmp_path: Path, own: list[Any], data: st.DataObject
) -> None:
    original = bpe(own, alphabet=LETTERS)
    order = data.draw(st.permutations(range(size(original))))
    clear(tmp_path)
    write_model(tmp_path / "a", original)
    write_model(tmp_path / "b", bpe(own, alphabet=LETTERS, order=order))
    rows = size(original)
    made = make(tmp_path, {"a": rows, "b": rows}, "tokenizer_source: union")
    assert made.files["tokenizer.json"] == (tmp_path / "a" / "tokenizer.json").read_bytes()
    shuffled = [*order, rows - 1]
    assert sources(made, "a", rows) == [[("a", row)] for row in range(rows)]
    assert sources(made, "b", rows) == [[("b", shuffled[row])] for row in range(rows)]


def test_an_entry_whose_merges_the_base_forestalls_is_produced_all_the_same(tmp_path: Path) -> None:
    # The base joins b and c first, so the donor's (ab, c) never applies.
    write_model(tmp_path / "a", bpe((("b", "c"), ("a", "b"))))
    write_model(tmp_path / "b", bpe((("a", "b"), ("ab", "c"), ("d", "e"), ("c", "de"), ("ab", "cde"))))
    made = make(tmp_path, {"a": 12, "b": 15}, "tokenizer_source: union")
    merged = load(made, tmp_path / "out")
    assert merged.encode("abc").tokens == ["abc"]
    # abcde is cut into a, bc, de: joined by way of abc, which is new too.
    assert merged.encode("abcde").tokens == ["abcde"]
    assert merged.encode("bcab").tokens == ["bc", "ab"]


def test_an_entry_that_cannot_be_produced_is_said(tmp_path: Path) -> None:
    write_model(tmp_path / "a", bpe((("b", "c"),)))
    write_model(tmp_path / "b", bpe((("a", "b"), ("c", "d"), ("ab", "cd"))))
    made = make(tmp_path, {"a": 11, "b": 13}, "tokenizer_source: union")
    assert load(made, tmp_path / "out").encode("abcd").tokens == ["a", "bc", "d"]
    assert any(
        remark.startswith("1 of the added entries are never produced") and "abcd" in remark for remark in made.remarks
    )


def test_an_entry_that_the_base_never_produces_stays_unproduced(tmp_path: Path) -> None:
    # The base has abc, but joins b and c first; merges for abcd that pass by abc would change what it does with abc.
    write_model(tmp_path / "a", bpe((("b", "c"), ("a", "b"), ("ab", "c"))))
    write_model(tmp_path / "b", bpe((("b", "c"), ("a", "bc"), ("abc", "d"))))
    made = make(tmp_path, {"a": 13, "b": 13}, "tokenizer_source: union")
    assert load(made, tmp_path / "out").encode("abcd abc").tokens == ["a", "bc", "d", "\u0120", "a", "bc"]
    assert any("never produced" in remark and "abcd" in remark for remark in made.remarks)


def test_whole_words_that_are_taken_without_merges_count_as_produced(tmp_path: Path) -> None:
    own = bpe((("b", "c"),))
    own.model.ignore_merges = True
    write_model(tmp_path / "a", own)
    write_model(tmp_path / "b", bpe((("a", "b"), ("c", "d"), ("ab", "cd"))))
    made = make(tmp_path, {"a": 11, "b": 13}, "tokenizer_source: union")
    assert load(made, tmp_path / "out").encode("abcd").tokens == ["abcd"]
    assert not any("never produced" in remark for remark in made.remarks)


@pytest.mark.parametrize("texts", [(False, True), (True, False), (True, True)])
def test_merges_are_read_in_both_forms(tmp_path: Path, texts: tuple[bool, bool]) -> None:
    for name, made, text in zip("ab", (MERGES[:2], MERGES), texts, strict=True):
        write_model(tmp_path / name, bpe(made))
        if text:
            path = tmp_path / name / "tokenizer.json"
            document = json.loads(path.read_text())
            document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
            path.write_text(json.dumps(document))
    made = make(tmp_path, {"a": 12, "b": 14}, "tokenizer_source: union")
    kind = str if texts[0] else list
    assert {type(merge) for merge in json.loads(made.files["tokenizer.json"])["model"]["merges"]} == {kind}
    assert load(made, tmp_path / "out").encode("abcd").tokens == ["abcd"]


SCORES = {"a": -2.5, "b": -2.75, "c": -3.0, "d": -3.25, "\u2581": -2.0}


@QUICK
@given(
    own=st.dictionaries(st.text("abcd", min_size=2, max_size=4), st.floats(-9, -1, width=32), max_size=6),
    other=st.dictionaries(st.text("abcde", min_size=1, max_size=4), st.floats(-12, -1, width=32), max_size=6),
    texts=st.lists(st.text("abcdx ", max_size=16), max_size=5),
)
def test_unigram_entries_come_with_their_scores_and_unknowns_cost_what_they_did(
    tmp_path: Path, own: dict[str, float], other: dict[str, float], texts: list[str]
) -> None:
    base, donor = unigram({**SCORES, **own}), unigram({**other, **SCORES})
    clear(tmp_path)
    write_model(tmp_path / "a", base)
    write_model(tmp_path / "b", donor)
    made = make(tmp_path, {"a": size(base), "b": size(donor)}, "tokenizer_source: union")
    merged = load(made, tmp_path / "out")
    listed = dict(json.loads(made.files["tokenizer.json"])["model"]["vocab"])
    least = min([0.0, *SCORES.values(), *own.values()])
    for token in set(other) - set(SCORES) - set(own):
        assert listed[token] == max(other[token], least)
    for text in texts:
        before, after = base.encode(text), merged.encode(text)
        if set(after.tokens) <= set(base.get_vocab()) | {"x"} and "x" not in text:
            assert after.tokens == before.tokens
        if not set(other) - set(own) - set(SCORES):
            assert after.ids == before.ids


def test_wordpiece_entries_are_produced(tmp_path: Path) -> None:
    common = [*"abc", "##a", "##b", "##c"]
    write_model(tmp_path / "a", wordpiece([*common, "ab"]), files={"vocab.txt": "old"})
    write_model(tmp_path / "b", wordpiece(["abc", "##bc", *common]))
    made = make(tmp_path, {"a": 9, "b": 10}, "tokenizer_source: union")
    merged = load(made, tmp_path / "out")
    assert merged.encode("abc abbc abab").tokens == ["abc", "ab", "##bc", "ab", "##a", "##b"]
    assert made.files["vocab.txt"].decode().split("\n")[:-1] == sorted(made.ids, key=lambda token: made.ids[token])


@pytest.mark.parametrize(
    ("other", "kind"),
    [
        (unigram({"a": -1.0}), "Unigram"),
        (wordpiece(["a"]), 'WordPiece with "##"'),
        (tokenizers.Tokenizer(tokenizers.models.BPE({"\u2581a": 0}, [])), "BPE with \u2581 for spaces"),
    ],
    ids=["unigram", "wordpiece", "sentencepiece"],
)
def test_different_kinds_are_refused_by_name_with_a_way_out(
    tmp_path: Path, other: tokenizers.Tokenizer, kind: str
) -> None:
    write_model(tmp_path / "a", bpe())
    write_model(tmp_path / "b", other)
    rows = {"a": 14, "b": size(other)}
    with pytest.raises(RecipeError) as caught:
        make(tmp_path, rows, "tokenizer_source: union")
    message = str(caught.value)
    assert f'that of "a" is byte-level BPE, that of "b" {kind}' in message
    assert "tokenizer_source: base" in message
    made = make(tmp_path, rows, "tokenizer_source: base")
    assert any(f"(its tokenizer is {kind}, not byte-level BPE)" in remark for remark in made.remarks)


def test_what_is_prepared_otherwise_is_said(tmp_path: Path) -> None:
    write_model(tmp_path / "a", bpe())
    other = bpe()
    other.normalizer = tokenizers.normalizers.NFC()
    write_model(tmp_path / "b", other)
    made = make(tmp_path, {"a": 14, "b": 14}, "tokenizer_source: union")
    assert any('normalizer of the tokenizers of "a" and "b" differ' in remark for remark in made.remarks)


def test_old_files_say_the_same_as_the_new_one(tmp_path: Path) -> None:
    old = {"vocab.json": "{}", "merges.txt": "", "tokenizer.model": "x", "added_tokens.json": json.dumps({END: 12})}
    write_model(tmp_path / "a", bpe(MERGES[:3]), files=old)
    write_model(tmp_path / "b", bpe())
    made = make(tmp_path, {"a": 13, "b": 14}, "tokenizer_source: union")
    assert json.loads(made.files["vocab.json"]) == made.ids
    assert made.files["merges.txt"].decode() == "#version: 0.2\na b\nc d\nab cd\ne f\n"
    assert "tokenizer.model" not in made.files
    assert any("tokenizer.model: left out" in remark for remark in made.remarks)


def test_transformers_loads_the_union_with_the_promised_ids(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    decoder = {"13": {"content": END, "special": True}}
    write_model(tmp_path / "a", bpe(), config={"model_type": "llama"}, settings={"added_tokens_decoder": decoder})
    write_model(tmp_path / "b", bpe((*MERGES, ("g", "h"))), added=("<|im_start|>", END))
    made = make(tmp_path, {"a": 14, "b": 16}, "tokenizer_source: union\nchat_template: chatml")
    load(made, tmp_path / "out")
    (tmp_path / "out" / "config.json").write_text('{"model_type": "llama"}')
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert loaded.get_vocab() == made.ids
    assert loaded.tokenize("abcdgh<|im_start|>ef") == ["abcd", "gh", "<|im_start|>", "ef"]
    assert loaded.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False).startswith(
        "<|im_start|>user\n"
    )


def test_transformers_loads_the_union_of_sentencepiece_models(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    special = ("<unk>", "<s>", "</s>")
    for name, made, more in (("a", (("a", "b"),), ""), ("b", (("\u2581", "a"), ("a", "b")), "\ud55c")):
        tokenizer = bpe(made, alphabet=(*special, *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *"ab", *more))
        tokenizer.model.byte_fallback = True
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
        tokenizer.decoder = tokenizers.decoders.ByteFallback()
        said = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        write_model(tmp_path / name, tokenizer, added=(*special, f"<{name}>"), settings=said)
    made = make(tmp_path, {"a": 264, "b": 266}, "tokenizer_source: union")
    load(made, tmp_path / "out")
    (tmp_path / "out" / "config.json").write_text('{"model_type": "llama"}')
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert type(loaded).__name__ == "LlamaTokenizer"
    assert loaded.get_vocab() == made.ids
    assert loaded.tokenize("ab\ud55c<b>") == ["\u2581", "ab", "\ud55c", "<b>"]


@pytest.mark.parametrize("keep", [("vocab.json", "merges.txt"), ("vocab.json",)])
def test_an_old_folder_is_converted_or_refused_with_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: tuple[str, ...]
) -> None:
    pairs = "".join(f"{left} {right}\n" for left, right in MERGES)
    vocab = {entry: number for number, entry in enumerate((*ALPHABET, *map("".join, MERGES), "<|endoftext|>"))}
    old = {"vocab.json": json.dumps(vocab), "merges.txt": f"#version: 0.2\n{pairs}"}
    for name in "ab":
        folder = tmp_path / name
        write_model(folder, None, config={"model_type": "gpt2"}, files={key: old[key] for key in keep})
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    rows = {"a": 14, "b": 14}
    if len(keep) == 2:
        made = make(tmp_path, rows, "tokenizer_source: union")
        assert made.ids == vocab
        assert load(made, tmp_path / "out").encode("abcd").tokens == ["abcd"]
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(FormatError, match=r"there is no tokenizer.json, only .*pip install transformers"):
        make(tmp_path, rows, "tokenizer_source: union")


def test_a_union_of_three_keeps_the_order_of_the_recipe(tmp_path: Path) -> None:
    write_model(tmp_path / "a", bpe(MERGES[:1]), added=())
    write_model(tmp_path / "b", bpe(MERGES[:3]), added=("<b>",))
    write_model(tmp_path / "c", bpe(MERGES), added=("<c>", "<b>"))
    made = make(tmp_path, {"a": 10, "b": 13, "c": 15}, "tokenizer_source: union")
    added = sorted(made.ids, key=lambda token: made.ids[token])[10:]
    assert added == ["cd", "abcd", "ef", "<b>", "<c>"]
    assert all(after > before for before, after in pairwise(made.ids[token] for token in added))
