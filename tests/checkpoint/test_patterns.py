"""rank_pattern and alpha_pattern: matched as PEFT matches them, and never for long."""

from __future__ import annotations

import re
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pymerge.checkpoint.patterns import Patterns
from pymerge.errors import FormatError

MODULE = "model.layers.11.self_attn.q_proj"


def find(key: str, module: str = MODULE) -> bool:
    return bool(Patterns(Path("c.json"), "alpha_pattern", {key: True}).find(module, False))


@pytest.mark.parametrize(
    "key",
    [
        "q_proj", "proj", "self_attn.q_proj", "model", MODULE, re.escape(MODULE), f"^{re.escape(MODULE)}$", "^q_proj",
        r".*\.q_proj", r"layers\.(1|11)\.self_attn.q_proj", r"layers\.\d+\.self_attn\.(q|k)_proj",
        r"layers\.[0-9]{2}\..*", r"layers\.\d{3,}\..*", r"layers\.(\d|1\d|2[0-3])\.self_attn\.[qkv]_proj$",
        r".+_proj", "(a|q)_proj", r"model\..*?attn.*", r"(?:\w+\.)+q_proj", r"(\w+\.){4}q_proj", r"(\w+\.){2,3}q_proj",
        "q_?proj", "[^k]_proj", "", ".*", "(self_attn.)?q_proj|v_proj", "layers.1.self_attn.q_proj", "q_proj$",
        ".q_proj", r"(layers\.(1|0)){1,}1?\..*",
    ],
)  # fmt: skip
@pytest.mark.parametrize("module", [MODULE, "q_proj", "model.layers.1.self_attn.k_proj", "lm_head"])
def test_a_key_matches_where_peft_says_so(key: str, module: str) -> None:
    assert find(key, module) == bool(re.match(rf"(.*\.)?({key})$", module))


PARTS = st.sampled_from(
    ["a", "b", r"\.", ".", "[ab]", "[^a]", r"\w", "(", ")", "|", "*", "+", "?", "{2}", "{1,2}", "$"]
)


@settings(max_examples=400, deadline=None)
@given(key=st.lists(PARTS, max_size=10).map("".join), module=st.text("ab.", max_size=7))
def test_what_is_understood_is_what_re_understands(key: str, module: str) -> None:
    try:
        found = find(key, module)
    except FormatError:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found == bool(re.match(rf"(.*\.)?({key})$", module))


def test_the_first_key_that_matches_counts() -> None:
    given = {"v_proj": 1, r".*\.q_proj": 2, "q_proj": 3, "layers.11.self_attn.q_proj": 4}
    assert Patterns(Path("c.json"), "alpha_pattern", given).find(MODULE, 5) == 2
    assert Patterns(Path("c.json"), "alpha_pattern", dict(reversed(given.items()))).find(MODULE, 5) == 4
    assert Patterns(Path("c.json"), "alpha_pattern", given).find("lm_head", 5) == 5
    assert Patterns(Path("c.json"), "alpha_pattern", None).find("lm_head", 5) == 5


@pytest.mark.parametrize(
    "key", ["(([a-z._0-9])+)+!", "(a|a)*" * 20 + "!", "(.*)*!", "((.{9}){9}|.*){99}!", "(.*.*)+=" * 9]
)
def test_no_expression_takes_long(key: str) -> None:
    begin = time.process_time()
    patterns = Patterns(Path("c.json"), "alpha_pattern", {key: 1})
    assert [patterns.find(f"model.layers.{number}.self_attn.q_proj", 2) for number in range(20)] == [2] * 20
    assert time.process_time() - begin < 5


def test_expressions_that_take_too_many_steps_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pymerge.checkpoint.patterns._STEPS", 100_000)
    patterns = Patterns(Path("c.json"), "alpha_pattern", {f"{'.*' * 200}!{number}": 1 for number in range(99)})
    with pytest.raises(FormatError, match=r"c.json: alpha_pattern: its expressions take too long"):
        [patterns.find(f"model.layers.{number}.self_attn.q_proj", 2) for number in range(999)]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("(", "without its"), ("a)", "too many"), ("*", "nothing that"), ("a**", "nothing that"),
        ("(?=a)b", "nothing that"), ("[", "not understood"), ("[z-a]", "not understood"), ("[a--b]", "not understood"),
        (r"(a)\1", "not understood"), ("a{2,1}", "before it begins"), ("a" * 501 + ".*", "longer than 500"),
        ("(" * 30 + ")" * 30, "inside of each other"),
    ],
)  # fmt: skip
def test_a_key_that_is_no_expression_is_refused_by_name(key: str, said: str) -> None:
    with pytest.raises(FormatError, match=rf"c.json: alpha_pattern: the key .*{said}.*; a module's name will do"):
        find(key)


@pytest.mark.parametrize("given", [[1], "q_proj", 3, True])
def test_what_is_no_object_is_refused(given: object) -> None:
    with pytest.raises(FormatError, match="rank_pattern: expected an object"):
        Patterns(Path("c.json"), "rank_pattern", given)
