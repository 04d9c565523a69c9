"""Special tokens and chat templates: what is chosen, what is written, and which conflicts are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import pytest
from vocabulary.making import END, bpe, make, write_model

from pymerge.errors import RecipeError
from pymerge.vocabulary.built_in import TEMPLATES

CHAT = "<|im_start|>"
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
]
OWN = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def said(remarks: tuple[str, ...], *pieces: str) -> bool:
    return any(all(piece in remark for piece in pieces) for remark in remarks)


def pair(folder: Path, first: dict[str, Any], second: dict[str, Any]) -> dict[str, int]:
    """Models a and b, which differ in one added token and in what is given here."""
    write_model(folder / "a", bpe(), **first)
    write_model(folder / "b", bpe(), **{"added": (END, CHAT), **second})
    return {"a": 14, "b": 15}


def test_ids_of_configs_are_compared_as_tokens(tmp_path: Path) -> None:
    rows = pair(
        tmp_path,
        {"config": {"eos_token_id": 13, "bos_token_id": 0}, "generation": {"eos_token_id": 13}},
        {"config": {"eos_token_id": 13, "bos_token_id": 14}, "generation": {"eos_token_id": [13, 14]}},
    )
    made = make(tmp_path, rows, "tokenizer_source: union")
    assert said(made.remarks, "bos_token_id of config.json", '"a" in "a"', f'"{CHAT}" in "b"', 'has that of "a"')
    assert said(
        made.remarks, "eos_token_id of generation_config.json", f'"{END}" in "a"', f'"{END}" and "{CHAT}" in "b"'
    )
    assert not said(made.remarks, "eos_token_id of config.json")
    assert not made.config_ids
    assert not made.generation_ids


def test_equal_tokens_under_other_ids_are_no_conflict(tmp_path: Path) -> None:
    write_model(tmp_path / "a", bpe(), added=(END, CHAT), config={"eos_token_id": 13})
    write_model(tmp_path / "b", bpe(), added=(CHAT, END), config={"eos_token_id": 14})
    assert not make(tmp_path, {"a": 15, "b": 15}, "tokenizer_source: union").remarks


def test_a_tokenizer_brings_the_ids_of_its_model(tmp_path: Path) -> None:
    rows = pair(
        tmp_path,
        {"config": {"eos_token_id": 13, "image_token_id": 9, "vocab_size": 14}, "generation": {"eos_token_id": 13}},
        {
            "added": (CHAT, END),
            "config": {"eos_token_id": 14},
            "generation": {"eos_token_id": [14, 13], "pad_token_id": 13},
        },
    )
    made = make(tmp_path, rows, "tokenizer_source: b")
    assert made.config_ids == {"eos_token_id": 14}
    assert made.generation_ids == {"eos_token_id": [14, 13], "pad_token_id": 13}


def test_ids_of_a_model_without_configs_follow_their_tokens(tmp_path: Path) -> None:
    rows = pair(tmp_path, {"config": {"eos_token_id": [13, 12], "pad_token_id": 13}}, {"added": (CHAT, END)})
    made = make(tmp_path, rows, "tokenizer_source: b")
    assert made.config_ids == {"eos_token_id": [14, 12], "pad_token_id": 14}


def test_ids_that_are_no_tokens_are_left_out_only_where_another_token_could_get_them(tmp_path: Path) -> None:
    rows = pair(tmp_path, {"config": {"pad_token_id": -1, "eos_token_id": [13, 14], "bos_token_id": 14}}, {})
    made = make(tmp_path, rows, "tokenizer_source: union")
    assert made.ids[CHAT] == 14
    assert made.config_ids == {"eos_token_id": [13], "bos_token_id": None}
    assert said(made.remarks, "bos_token_id = 14 of config.json is no token of the output")


def test_an_end_at_which_generation_does_not_stop_is_said(tmp_path: Path) -> None:
    rows = pair(tmp_path, {"config": {"eos_token_id": 3}}, {})
    made = make(tmp_path, rows, "tokenizer_source: base")
    assert said(made.remarks, '"a" itself', f'"{END}" (13)', "generation does not stop there")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "alpaca",
            "<s>Be brief.\n\n### Instruction:\nHi\n\n### Response:\nHello</s>\n\n"
            "### Instruction:\nBye\n\n### Response:\n",
        ),
        (
            "chatml",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello"
            "<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "exaone",
            "[|system|]Be brief.[|endofturn|]\n[|user|]Hi\n[|assistant|]Hello[|endofturn|]\n[|user|]Bye\n[|assistant|]",
        ),
        (
            "llama3",
            "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|><|start_header_id|>user"
            "<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        ("mistral", "<s>[INST] Be brief.\n\nHi [/INST] Hello</s>[INST] Bye [/INST]"),
    ],
)
def test_built_in_templates(name: str, text: str) -> None:
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(TEMPLATES[name])
    assert template.render(messages=TALK, add_generation_prompt=True, bos_token="<s>", eos_token="</s>") == text
    assert template.render(messages=[], bos_token=None) == ""


def test_exaone_opens_with_an_empty_system_turn() -> None:
    template = jinja2.Environment().from_string(TEMPLATES["exaone"])
    assert template.render(messages=TALK[1:2]) == "[|system|][|endofturn|]\n[|user|]Hi\n"


@pytest.mark.parametrize("tokenizer", ["", "tokenizer_source: union"])
def test_a_template_goes_into_the_settings(tmp_path: Path, tokenizer: str) -> None:
    rows = pair(tmp_path, {}, {})
    made = make(tmp_path, rows, f"chat_template: chatml\n{tokenizer}")
    settings = json.loads(made.files["tokenizer_config.json"])
    assert settings["chat_template"] == made.template == TEMPLATES["chatml"]
    assert settings["eos_token"] == END
    # The base alone has neither mark.
    assert said(made.remarks, "chatml writes <|im_end|>" if tokenizer else f"chatml writes {CHAT}, <|im_end|>")


def test_without_a_tokenizer_setting_rows_and_tokenizer_stay(tmp_path: Path) -> None:
    made = make(tmp_path, pair(tmp_path, {}, {}), "chat_template: chatml")
    assert (made.rows, made.choices) == (14, {})
    assert made.files["tokenizer.json"] == (tmp_path / "a" / "tokenizer.json").read_bytes()


def test_a_template_replaces_the_file_that_holds_one(tmp_path: Path) -> None:
    files = {"chat_template.jinja": "old", "chat_template.json": "{}", "additional_chat_templates/tools.jinja": "t"}
    made = make(tmp_path, pair(tmp_path, {"files": files}, {}), f'chat_template: "{OWN}"')
    assert made.files["chat_template.jinja"].decode() == made.template == OWN
    assert json.loads(made.files["chat_template.json"]) == {"chat_template": OWN}
    assert made.files["tokenizer_config.json"] == (tmp_path / "a" / "tokenizer_config.json").read_bytes()
    assert "additional_chat_templates/tools.jinja" not in made.files
    assert said(made.remarks, "other named chat templates are left out")


def test_auto_takes_the_most_common_template(tmp_path: Path) -> None:
    forms: list[Any] = ["first", [{"name": "default", "template": f" {OWN}\n"}, {"name": "rag", "template": "x"}], None]
    for name, template in zip("abc", forms, strict=True):
        write_model(tmp_path / name, bpe(), settings={"chat_template": template})
    write_model(tmp_path / "d", bpe(), files={"chat_template.jinja": OWN})
    made = make(tmp_path, dict.fromkeys("abcd", 14), "chat_template: auto\ntokenizer_source: base")
    assert made.template == json.loads(made.files["tokenizer_config.json"])["chat_template"] == OWN
    assert said(
        made.remarks, "disagree on the chat template", 'first in "a"', f"{OWN[:10]}", 'none in "c"', 'that of "b"'
    )


def test_auto_without_any_template_changes_nothing_and_says_so(tmp_path: Path) -> None:
    made = make(tmp_path, pair(tmp_path, {}, {}), "chat_template: auto")
    assert made.template is None
    assert made.files == {name: (tmp_path / "a" / name).read_bytes() for name in made.files}
    assert said(made.remarks, "auto finds none")


def test_different_templates_are_told_where_none_is_chosen(tmp_path: Path) -> None:
    rows = pair(tmp_path, {"settings": {"chat_template": "x" * 100}}, {"settings": {"chat_template": OWN}})
    made = make(tmp_path, rows, "tokenizer_source: base")
    assert made.template == "x" * 100
    assert said(
        made.remarks, "disagree on the chat template", "100 characters (xxx", 'in "a"', 'in "b"', 'has that of "a"'
    )


def test_a_template_needs_tokenizer_files(tmp_path: Path) -> None:
    write_model(tmp_path / "a", None)
    with pytest.raises(RecipeError, match=r"<recipe>:3:16: .a. has no tokenizer files"):
        make(tmp_path, {"a": 14}, "chat_template: chatml")
