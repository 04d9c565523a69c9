"""The document of a mixture: what it reads as, and what is said of every mistake, and where."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pymerge.config.moe import DRAWN, GATE_MODES
from pymerge.config.moe_document import load_moe
from pymerge.errors import Problem, RecipeError

GOOD = "base_model: b\nexperts: [{source_model: x, positive_prompts: [p]}, {source_model: y, positive_prompts: [q]}]\n"


def find(text: str) -> tuple[Problem, ...]:
    with pytest.raises(RecipeError) as caught:
        load_moe(text, lenient=True)
    return caught.value.problems


def test_a_document_says_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "moe.yml"
    path.write_text(
        "base_model: b@main\ngate_mode: cheap_embed\ndtype: bfloat16\nexperts_per_token: 1\narchitecture: qwen\n"
        "experts:\n  - source_model: x+lora\n    positive_prompts: [code, 12]\n    negative_prompts: [poems]\n"
        "    noise_scale: 1e-3\n    residual_scale: 0\n"
        "shared_experts:\n  - {source_model: {model: {path: s}}, positive_prompts: [all]}\n"
    )
    config = load_moe(path)
    (expert,) = config.experts
    (shared,) = config.shared
    assert (str(config.base_model), str(expert.model), str(shared.model)) == ("b@main", "x+lora", "s")
    assert (expert.positive, expert.negative, expert.noise, expert.residual) == (("code", "12"), ("poems",), 1e-3, 0)
    assert (config.gate_mode, str(config.dtype), config.per_token, config.architecture) == (
        "cheap_embed", "bfloat16", 1, "qwen"
    )  # fmt: skip
    assert expert.where is not None
    assert str(expert.where) == f"{path}:7:5"
    assert [str(entry.model) for entry in config.recipe.inputs] == ["x+lora", "s"]
    assert config.text == path.read_text()


def test_what_is_not_said_has_the_established_values() -> None:
    config = load_moe(GOOD)
    assert (config.gate_mode, config.dtype, config.per_token, config.architecture, config.shared) == (
        "hidden", None, 2, None, ()
    )  # fmt: skip
    assert {(expert.noise, expert.residual, expert.negative) for expert in config.experts} == {(0.0, 1.0, ())}


@given(mode=st.sampled_from((*GATE_MODES, "uniform", "hidden_last")))
def test_prompts_are_needed_where_routers_come_of_them(mode: str) -> None:
    text = f"base_model: b\ngate_mode: {mode}\nexperts: [{{source_model: x}}, {{source_model: y}}]\n"
    if mode in (*DRAWN, "uniform"):
        assert load_moe(text).gate_mode in DRAWN
    else:
        assert [problem.message for problem in find(text)] == [
            f'the expert "{name}" has no positive_prompts' for name in "xy"
        ]


ONE = "base_model: b\nexperts_per_token: 1\n"
#: Text, (line, column), a piece of the message.
MISTAKES: dict[str, tuple[str, tuple[int, int], str]] = {
    "no mapping": ("[a]\n", (1, 1), "a mixture is a mapping"),
    "two documents": (GOOD + "---\n" + GOOD, (4, 1), "is one document"),
    "no base": (
        "experts: [{source_model: x}]\ngate_mode: random\nexperts_per_token: 1\n",
        (1, 1),
        "without base_model",
    ),
    "no experts": ("base_model: b\n", (1, 1), "experts are missing"),
    "empty experts": ("base_model: b\nexperts: []\n", (1, 1), "experts are missing"),
    "experts are a word": ("base_model: b\nexperts: x\n", (2, 10), "experts must be a list"),
    "an expert is a word": ("base_model: b\nexperts: [x]\n", (2, 11), "an expert must be a mapping"),
    "an expert without model": ("base_model: b\nexperts: [{noise_scale: 1}]\n", (2, 11), "without source_model"),
    "unknown mode": (GOOD + "gate_mode: inner\n", (3, 12), 'there is no gate_mode "inner"'),
    "unknown type": (GOOD + "dtype: int8\n", (3, 8), "is not a type that weights"),
    "no expert a token": (GOOD + "experts_per_token: 0\n", (3, 20), "must be a whole number"),
    "half an expert": (GOOD + "experts_per_token: 1.5\n", (3, 20), "must be a whole number"),
    "too few experts": (GOOD + "experts_per_token: 3\n", (3, 20), "experts_per_token is 3, and there are 2"),
    "noise is a word": (
        "base_model: b\nexperts: [{source_model: x, positive_prompts: [p], noise_scale: much}]\nexperts_per_token: 1\n",
        (2, 65),
        "noise_scale must be a number",
    ),
    "residual is infinite": (
        ONE + "experts: [{source_model: x, positive_prompts: [p], residual_scale: .inf}]\n",
        (3, 68),
        "residual_scale must be a number",
    ),
    "an empty prompt": (
        ONE + "gate_mode: random\nexperts: [{source_model: x, positive_prompts: ['']}]\n",
        (4, 48),
        "texts that are not empty",
    ),
    "the same prompts": (GOOD.replace("[q]", "[p]"), (2, 11), "cannot tell them apart"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_every_mistake_is_found_where_it_is(name: str) -> None:
    text, place, message = MISTAKES[name]
    problems = find(text)
    assert len(problems) == 1, problems
    where = problems[0].where
    assert where is not None
    assert (where.line, where.column) == place
    assert message in problems[0].message


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (GOOD + "gate_modes: random\n", 'did you mean "gate_mode"?'),
        (GOOD.replace("positive_prompts: [q]", "positive_prompts: [q], noise: 1"), 'did you mean "noise_scale"?'),
    ],
)
def test_unknown_keys_are_errors_with_a_suggestion_or_warnings(text: str, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_moe(text)
    assert caught.value.problems[0].hint == hint
    assert [warning.hint for warning in load_moe(text, lenient=True).warnings] == [hint]
