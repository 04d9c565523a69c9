"""Models whose vocabularies differ as those of published ones do: rows, ids, and texts as promised."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vocabulary.making import ALPHABET, END, MERGES, bpe, load, make, row_of, sources, write_model

from pymerge.errors import RecipeError

#: Ids of the plain model: 9 characters, 4 merges, <|end|> last.
COUNT = 14
#: Ids that the same entries have in a model where they are all turned round.
TURNED = list(range(12, -1, -1))

CHAT = "<|im_start|>"


def said(remarks: tuple[str, ...], *pieces: str) -> bool:
    return any(all(piece in remark for piece in pieces) for remark in remarks)


def test_equal_tokenizers_leave_files_and_rows_alone(tmp_path: Path) -> None:
    for name in "ab":
        write_model(tmp_path / name, bpe())
    made = make(tmp_path, {"a": COUNT, "b": COUNT}, "tokenizer_source: union")
    assert not made.choices
    assert made.files == {name: (tmp_path / "a" / name).read_bytes() for name in made.files}
    assert set(made.files) == {"tokenizer.json", "tokenizer_config.json"}
    assert (made.size, made.rows) == (COUNT, COUNT)
    assert not made.remarks


def test_an_added_token_of_one_model_gets_its_row_in_both(tmp_path: Path) -> None:
    write_model(tmp_path / "a", bpe())
    write_model(tmp_path / "b", bpe(), added=(END, CHAT))
    made = make(tmp_path, {"a": COUNT, "b": COUNT + 1}, "tokenizer_source: union")
    assert made.rows == COUNT + 1
    assert row_of(made, CHAT, "a", COUNT) == row_of(made, CHAT, "b", COUNT + 1) == [("b", COUNT)]
    assert load(made, tmp_path / "out").encode(f"abcd{CHAT}ef").tokens == ["abcd", CHAT, "ef"]
    assert made.fates == {CHAT: f'id {COUNT}: its own row in "b", row {COUNT} of "b" in "a"'}


def test_different_pads_are_both_kept_and_the_conflict_names_both(tmp_path: Path) -> None:
    write_model(tmp_path / "a", bpe(), added=(END, "<pad>"), settings={"pad_token": "<pad>"})
    write_model(tmp_path / "b", bpe(), added=(END, "[PAD]"), settings={"pad_token": {"content": "[PAD]"}})
    made = make(tmp_path, {"a": COUNT + 1, "b": COUNT + 1}, "tokenizer_source: union")
    assert row_of(made, "<pad>", "b", COUNT + 1) == [("a", COUNT)]
    assert row_of(made, "[PAD]", "a", COUNT + 1) == [("b", COUNT)]
    assert said(made.remarks, "pad_token", '"<pad>" in "a"', '"[PAD]" in "b"', 'The output has that of "a"')
    assert load(made, tmp_path / "out").encode("<pad>[PAD]").ids == [COUNT, COUNT + 1]


def test_shuffled_ids_lead_back_to_their_rows(tmp_path: Path) -> None:
    write_model(tmp_path / "a", bpe())
    write_model(tmp_path / "b", bpe(order=TURNED))
    made = make(tmp_path, {"a": COUNT, "b": COUNT}, "tokenizer_source: union")
    assert sources(made, "a", COUNT) == [[("a", row)] for row in range(COUNT)]
    assert sources(made, "b", COUNT) == [[("b", row)] for row in (*TURNED, COUNT - 1)]


def test_a_token_that_one_model_lacks_gets_the_others_row(tmp_path: Path) -> None:
    write_model(tmp_path / "a", bpe())
    write_model(tmp_path / "b", bpe(MERGES[:3]))
    made = make(tmp_path, {"a": COUNT, "b": COUNT - 1}, "tokenizer_source: base")
    assert row_of(made, "ef", "b", COUNT - 1) == [("a", made.ids["ef"])]
    assert row_of(made, "abcd", "b", COUNT - 1) == [("b", made.ids["abcd"])]


def test_a_token_of_several_models_that_the_base_lacks_is_their_mean(tmp_path: Path) -> None:
    write_model(tmp_path / "a", bpe())
    write_model(tmp_path / "b", bpe(), added=(END, CHAT))
    write_model(tmp_path / "c", bpe(order=TURNED), added=(CHAT, END))
    rows = {"a": COUNT, "b": COUNT + 1, "c": COUNT + 1}
    made = make(tmp_path, rows, "tokenizer_source: union")
    assert row_of(made, CHAT, "a", COUNT) == [("b", COUNT), ("c", COUNT - 1)]
    assert row_of(made, CHAT, "c", COUNT + 1) == [("c", COUNT - 1)]


def test_a_token_of_several_models_is_the_base_models_or_without_one_their_mean(tmp_path: Path) -> None:
    write_model(tmp_path / "a", bpe(), added=(END, CHAT))
    write_model(tmp_path / "b", bpe(), added=(END, CHAT))
    write_model(tmp_path / "c", bpe())
    rows = {"a": COUNT + 1, "b": COUNT + 1, "c": COUNT}
    for named, expected in [("", [("a", COUNT), ("b", COUNT)]), ("\nbase_model: b", [("b", COUNT)])]:
        made = make(tmp_path, rows, f"tokenizer_source: union{named}")
        assert row_of(made, CHAT, "c", COUNT) == expected


def test_conflicting_definitions_of_an_added_token_keep_the_first(tmp_path: Path) -> None:
    write_model(tmp_path / "a", bpe())
    write_model(tmp_path / "b", bpe(), added=(END, (CHAT, {"special": False, "lstrip": True})))
    write_model(tmp_path / "c", bpe(), added=(END, CHAT))
    rows = {"a": COUNT, "b": COUNT + 1, "c": COUNT + 1}
    made = make(tmp_path, rows, "tokenizer_source: union")
    assert said(made.remarks, 'that "c" defines otherwise', f'"{CHAT}" (special; first lstrip)')
    assert load(made, tmp_path / "out").encode(f"ab {CHAT}").ids == [made.ids["ab"], made.ids[CHAT]]


def test_ids_that_the_embedding_lacks_are_left_out(tmp_path: Path) -> None:
    said_pad = {"pad_token": "<pad>", "added_tokens_decoder": {str(COUNT): {"content": "<pad>"}}}
    write_model(tmp_path / "a", bpe(), added=(END, "<pad>"), settings=said_pad, config={"pad_token_id": COUNT})
    write_model(tmp_path / "b", bpe())
    made = make(tmp_path, {"a": COUNT, "b": COUNT}, "tokenizer_source: union")
    assert not made.choices
    assert made.rows == COUNT
    assert "<pad>" not in load(made, tmp_path / "out").get_vocab()
    settings = json.loads(made.files["tokenizer_config.json"])
    assert "pad_token" not in settings
    assert list(settings["added_tokens_decoder"]) == [str(COUNT - 1)]
    assert made.config_ids == {"pad_token_id": None}
    assert made.fates == {"<pad>": "left out"}
    assert said(made.remarks, f'"a" has {COUNT} rows', "1 ids", '"<pad>"')


def test_a_token_beyond_the_base_embedding_comes_from_a_model_that_has_its_row(tmp_path: Path) -> None:
    write_model(tmp_path / "a", bpe(), added=(END, "<pad>"))
    write_model(tmp_path / "b", bpe(), added=(END, CHAT, "<pad>"))
    made = make(tmp_path, {"a": COUNT, "b": COUNT + 2}, "tokenizer_source: union")
    assert row_of(made, "<pad>", "a", COUNT) == [("b", COUNT + 1)]
    assert load(made, tmp_path / "out").encode(f"<pad>{CHAT}").tokens == ["<pad>", CHAT]


@pytest.mark.parametrize("source", ["base", "union"])
def test_padding_rows_survive(tmp_path: Path, source: str) -> None:
    write_model(tmp_path / "a", bpe())
    write_model(tmp_path / "b", bpe(order=TURNED))
    write_model(tmp_path / "c", bpe())
    made = make(tmp_path, {"a": 32, "b": COUNT + 2, "c": COUNT}, f"tokenizer_source: {source}")
    assert (made.size, made.rows) == (COUNT, 32)
    assert sources(made, "a", 32) == [[("a", row)] for row in range(32)]
    padding = sources(made, "b", COUNT + 2)[COUNT:]
    assert padding[:2] == [[("b", COUNT)], [("b", COUNT + 1)]]
    assert padding[2:] == [[("b", -1)]] * 16
    assert sources(made, "c", COUNT)[COUNT:] == [[("c", -1)]] * 18


def test_the_row_of_a_token_that_is_left_out_is_no_padding(tmp_path: Path) -> None:
    write_model(tmp_path / "a", bpe())
    write_model(tmp_path / "b", bpe(), added=(END, CHAT))
    made = make(tmp_path, {"a": 16, "b": 16}, "tokenizer_source: base")
    assert sources(made, "b", 16)[COUNT:] == [[("b", -1)], [("b", COUNT + 1)]]


def test_new_tokens_take_the_place_of_padding(tmp_path: Path) -> None:
    write_model(tmp_path / "a", bpe())
    write_model(tmp_path / "b", bpe(), added=(END, CHAT))
    made = make(tmp_path, {"a": 32, "b": 32}, "tokenizer_source: union")
    assert (made.size, made.rows) == (COUNT + 1, 32)
    assert sources(made, "a", 32) == [[("a", r)] if r != COUNT else [("b", COUNT)] for r in range(32)]
    assert sources(made, "b", 32) == [[("b", r)] for r in range(32)]


@pytest.mark.parametrize(("multiple", "stored", "rows"), [(16, COUNT, 16), (8, 32, 32), (64, 32, 64), (10, 32, 40)])
def test_rows_are_rounded_up_and_never_cut(tmp_path: Path, multiple: int, stored: int, rows: int) -> None:
    write_model(tmp_path / "a", bpe())
    write_model(tmp_path / "b", bpe())
    text = f"tokenizer: {{source: base, pad_to_multiple_of: {multiple}}}"
    made = make(tmp_path, {"a": stored, "b": stored}, text)
    assert (made.size, made.rows) == (COUNT, rows)


def test_a_token_in_no_model_gets_zeros_and_a_remark(tmp_path: Path) -> None:
    for name in "ab":
        write_model(tmp_path / name, bpe())
    made = make(tmp_path, {"a": COUNT, "b": COUNT}, "tokenizer: {source: base, tokens: {<|new|>: {}}}")
    assert row_of(made, "<|new|>", "a", COUNT) == row_of(made, "<|new|>", "b", COUNT) == []
    assert said(made.remarks, "<|new|>", "zeros")
    assert load(made, tmp_path / "out").encode("ab<|new|>ab").tokens == ["ab", "<|new|>", "ab"]


def test_zeros_that_were_asked_for_are_no_remark_and_leave_own_rows(tmp_path: Path) -> None:
    write_model(tmp_path / "a", bpe())
    write_model(tmp_path / "b", bpe(), added=(END, CHAT))
    text = f"tokenizer: {{tokens: {{{CHAT}: {{source: {{kind: zero}}}}}}}}"
    made = make(tmp_path, {"a": COUNT, "b": COUNT + 1}, text)
    assert row_of(made, CHAT, "a", COUNT) == []
    assert row_of(made, CHAT, "b", COUNT + 1) == [("b", COUNT)]
    assert not said(made.remarks, "no model has a row")


def test_force_replaces_rows_that_models_have(tmp_path: Path) -> None:
    write_model(tmp_path / "a", bpe())
    write_model(tmp_path / "b", bpe())
    made = make(tmp_path, {"a": COUNT, "b": COUNT}, f"tokenizer: {{tokens: {{{END}: {{source: b, force: true}}}}}}")
    assert row_of(made, END, "a", COUNT) == row_of(made, END, "b", COUNT) == [("b", COUNT - 1)]
    assert made.fates[END] == f'id {COUNT - 1}: row {COUNT - 1} of "b" in "a" and "b"'


def test_force_without_a_source_gives_all_models_the_default(tmp_path: Path) -> None:
    write_model(tmp_path / "a", bpe())
    write_model(tmp_path / "b", bpe())
    text = f"tokenizer: {{tokens: {{{END}: {{force: true}}}}}}"
    for named, expected in [("\nbase_model: a", [("a", COUNT - 1)]), ("", [("a", COUNT - 1), ("b", COUNT - 1)])]:
        made = make(tmp_path, {"a": COUNT, "b": COUNT}, text + named)
        assert row_of(made, END, "b", COUNT) == expected


@pytest.mark.parametrize("which", ["token_id: 11", "token: abcd"])
def test_a_token_of_a_model_stands_in(tmp_path: Path, which: str) -> None:
    write_model(tmp_path / "a", bpe())
    write_model(tmp_path / "b", bpe())
    text = f"tokenizer: {{tokens: {{<|new|>: {{source: {{kind: model_token, model: b, {which}}}}}}}}}"
    made = make(tmp_path, {"a": COUNT, "b": COUNT}, text)
    assert row_of(made, "<|new|>", "a", COUNT) == row_of(made, "<|new|>", "b", COUNT) == [("b", 11)]


def test_a_model_that_is_not_merged_gives_tokenizer_and_rows(tmp_path: Path) -> None:
    write_model(tmp_path / "a", bpe())
    write_model(tmp_path / "b", bpe())
    write_model(tmp_path / "chat", bpe(order=TURNED), added=(CHAT, END))
    rows = {"a": COUNT, "b": COUNT}
    made = make(tmp_path, rows, "tokenizer_source: chat", others={"chat": COUNT + 1})
    assert made.files["tokenizer.json"] == (tmp_path / "chat" / "tokenizer.json").read_bytes()
    assert row_of(made, CHAT, "a", COUNT) == [("chat", COUNT - 1)]
    assert row_of(made, "ab", "a", COUNT) == [("a", 9)]
    without = make(tmp_path, rows, "tokenizer_source: chat", others={"chat": None})
    assert row_of(without, CHAT, "a", COUNT) == []
    assert said(without.remarks, CHAT, "zeros")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("{source: b}", '"b" has no row for "<|new|>"'),
        ("{source: {kind: model_token, model: b, token: zz}}", '"b" has no row for "zz"'),
        ("{source: {kind: model_token, model: b, token_id: 14}}", '"b" has no row 14, it has 14'),
        ("{source: absent}", '"absent" has no embedding'),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused_with_its_place(tmp_path: Path, rule: str, message: str) -> None:
    for name in "ab":
        write_model(tmp_path / name, bpe())
    with pytest.raises(RecipeError) as caught:
        make(tmp_path, {"a": COUNT, "b": COUNT}, f"tokenizer:\n  tokens:\n    <|new|>: {rule}")
    (problem,) = caught.value.problems
    assert message in problem.message
    assert problem.where is not None
    assert problem.where.line == 5


def test_what_base_leaves_out_is_said(tmp_path: Path) -> None:
    write_model(tmp_path / "a", bpe())
    write_model(tmp_path / "b", bpe(alphabet=(*ALPHABET, "x")), added=(END, CHAT))
    made = make(tmp_path, {"a": COUNT, "b": COUNT + 2}, "tokenizer_source: base")
    assert said(made.remarks, '2 tokens of "b" are not in the output', '"x"', CHAT)
    assert made.fates == {CHAT: "left out"}
    assert made.rows == COUNT


def test_a_model_without_tokenizer_files_is_taken_to_have_the_bases(tmp_path: Path) -> None:
    write_model(tmp_path / "a", bpe())
    write_model(tmp_path / "b", None)
    made = make(tmp_path, {"a": COUNT, "b": COUNT}, "tokenizer_source: union")
    assert not made.choices
    assert said(made.remarks, '"b" has no tokenizer files')
    with pytest.raises(RecipeError, match='"b" has no tokenizer files'):
        make(tmp_path, {"a": COUNT, "b": COUNT}, "tokenizer_source: b")
    with pytest.raises(RecipeError, match="15 rows where"):
        make(tmp_path, {"a": COUNT, "b": COUNT + 1}, "tokenizer_source: union")


def test_a_special_token_that_the_base_has_as_a_plain_entry_becomes_special(tmp_path: Path) -> None:
    write_model(tmp_path / "a", bpe(alphabet=(*ALPHABET, CHAT)))
    write_model(tmp_path / "b", bpe(), added=(END, CHAT, ("ab", {"special": False})))
    made = make(tmp_path, {"a": COUNT + 1, "b": COUNT + 1}, "tokenizer_source: union")
    assert made.ids[CHAT] == 9
    loaded = load(made, tmp_path / "out")
    assert loaded.encode(f"ab{CHAT}").tokens == ["ab", CHAT]
    assert {token.content for token in loaded.get_added_tokens_decoder().values()} == {END, CHAT}
    assert said(made.remarks, 'special tokens of "b" that are plain entries before', CHAT)
    assert said(made.remarks, 'added tokens of "b" that are plain entries before, and stay so: "ab"')
