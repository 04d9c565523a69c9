"""Every mistake that a recipe can hold: what is said of it, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pymerge.config import load_recipe
from pymerge.errors import Problem, RecipeError

GOOD = "merge_method: linear\nmodels: [{model: a}]\n"


def find(text: str, **options: Any) -> tuple[Problem, ...]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(text, **options)
    return caught.value.problems


# Text, (line, column), pieces of the message. All of these are errors even under lenient.
FATAL: dict[str, tuple[str, tuple[int, int], tuple[str, ...]]] = {
    "no inputs": ("merge_method: linear\n", (1, 1), ("needs either models or slices",)),
    "two inputs": (
        GOOD + "slices: [{sources: [{model: a, layer_range: [0, 1]}]}]\n",
        (3, 1),
        ("models and slices are both given",),
    ),
    "no method": ("models: [{model: a}]\nname: x\n", (1, 1), ("merge_method is missing",)),
    "method is a list": ("merge_method: [a]\nmodels: [{model: a}]\n", (1, 15), ("must be one name",)),
    "empty module": ("merge_method: linear\nmodules: {text: {models: []}}\n", (2, 17), ('module "text" needs either',)),
    "modules is a list": ("merge_method: linear\nmodules: [a]\n", (2, 10), ("modules must be a mapping",)),
    "module is a word": ("merge_method: linear\nmodules: {text: a}\n", (2, 11), ('module "text" must be a mapping',)),
    "modules and models": (
        GOOD + "modules: {t: {models: [{model: a}]}}\n",
        (3, 1),
        ("models and modules are both given",),
    ),
    "both tokenizer forms": (
        GOOD + "tokenizer: {source: union}\ntokenizer_source: base\n",
        (4, 1),
        ("tokenizer_source and tokenizer are both given", "keep one"),
    ),
    "tokenizer is a word": (GOOD + "tokenizer: base\n", (3, 12), ("must be a mapping", "tokenizer: {source: base}")),
    "tokenizer source is a list": (GOOD + "tokenizer: {source: [a]}\n", (3, 21), ("must be named by a path",)),
    "tokens is a list": (GOOD + "tokenizer: {tokens: [a]}\n", (3, 21), ("tokens must be a mapping",)),
    "rule is a word": (GOOD + "tokenizer: {tokens: {x: zero}}\n", (3, 25), ('token "x": expected a mapping',)),
    "empty token": (GOOD + "tokenizer: {tokens: {'': {}}}\n", (3, 22), ("an empty token",)),
    "force": (GOOD + "tokenizer: {tokens: {x: {force: 1}}}\n", (3, 33), ("force must be true or false",)),
    "kind": (
        GOOD + "tokenizer: {tokens: {x: {source: {kind: zeros}}}}\n",
        (3, 41),
        ('unknown kind "zeros"', 'did you mean "zero"'),
    ),
    "token and token_id": (
        GOOD + "tokenizer: {tokens: {x: {source: {kind: model_token, model: a, token: y, token_id: 1}}}}\n",
        (3, 34),
        ("either token or token_id",),
    ),
    "model_token without model": (
        GOOD + "tokenizer: {tokens: {x: {source: {kind: model_token, token: y}}}}\n",
        (3, 34),
        ("model_token needs model",),
    ),
    "negative token_id": (
        GOOD + "tokenizer: {tokens: {x: {source: {kind: model_token, model: a, token_id: -1}}}}\n",
        (3, 74),
        ("token_id must be a whole number from 0 on",),
    ),
    "padding": (
        GOOD + "tokenizer: {pad_to_multiple_of: 0}\n",
        (3, 33),
        ("pad_to_multiple_of must be a whole number from 1 to",),
    ),
    "chat_template": (GOOD + "chat_template: chat_ml\n", (3, 16), ("is no chat template", 'did you mean "chatml"')),
    "short template": (GOOD + "chat_template: '{{x}}'\n", (3, 16), ("is no chat template", "at least 20 characters")),
    "template without braces": (GOOD + "chat_template: a template that renders itself\n", (3, 16), ("is no chat",)),
    "template is a list": (GOOD + "chat_template: [auto]\n", (3, 16), ("is no chat template",)),
    "two plus signs": ("merge_method: linear\nmodels: [{model: a+b+c}]\n", (2, 18), ("cannot read", "{path: ...}")),
    "two at signs": ("merge_method: linear\nmodels: [{model: a@b@c}]\n", (2, 18), ("cannot read",)),
    "model is a word": ("merge_method: linear\nmodels: [a]\n", (2, 10), ("must be a mapping", "- model: a")),
    "model missing": ("merge_method: linear\nmodels: [{parameters: {}}]\n", (2, 10), ("a model without model",)),
    "model is null": ("merge_method: linear\nmodels: [{model: }]\n", (2, 10), ("a model without model",)),
    "model is a list": ("merge_method: linear\nmodels: [{model: [a]}]\n", (2, 18), ("must be named by a path",)),
    "models is a word": ("merge_method: linear\nmodels: a\n", (2, 9), ("models must be a list",)),
    "int dtype": (GOOD + "dtype: int64\n", (3, 8), ('dtype "int64"', "one of float64, float32, float16, bfloat16")),
    "dtype": (GOOD + "out_dtype: bf16\n", (3, 12), ('out_dtype "bf16"',)),
    "null parameter": (GOOD + "parameters: {t: }\n", (3, 17), ("t has no value",)),
    "parameters is a list": (GOOD + "parameters: [t]\n", (3, 13), ("parameters must be a mapping",)),
    "mixed list": (GOOD + "parameters: {t: [1, {value: 2}]}\n", (3, 18), ("not both",)),
    "no value": (GOOD + "parameters: {t: [{filter: mlp}]}\n", (3, 18), ("without value",)),
    "nested list": (GOOD + "parameters: {t: [[1]]}\n", (3, 17), ("expected a value or a list",)),
    "list as filter": (GOOD + "parameters: {t: [{filter: [a], value: 1}]}\n", (3, 27), ("one piece of text",)),
    "duplicate key": (GOOD + "models: []\n", (3, 1), ('key "models" appears twice', "first at <recipe>:2:1")),
    "tag": (GOOD + "name: !!python/name:os.system x\n", (3, 7), ("is not allowed",)),
    "not a mapping": ("- a\n- b\n", (1, 1), ("a recipe is a mapping",)),
    "empty": ("\n# nothing\n", (1, 1), ("the recipe is empty",)),
    "two results": (GOOD + "---\n" + GOOD, (4, 1), ("two documents have no name", "name: ...")),
    "one name twice": (
        GOOD + "name: one\n---\n" + GOOD + "name: one\n---\n" + GOOD.replace("model: a", "model: one"),
        (5, 1),
        ('two stages are called "one"', "rename one"),
    ),
    "stages in a circle": (
        "---\n".join((GOOD.replace("model: a", "model: b") + "name: a\n", GOOD + "name: b\n", GOOD)),
        (1, 1),
        ("stages need each other", '"a" -> "b" -> "a"'),
    ),
    "name is a list": (GOOD + "name: [a]\n", (3, 7), ("name must be one name",)),
    "syntax": ("a: [1\nb: 2\n", (2, 2), ("not valid YAML",)),
    "tab": ("a:\n\tb: 1\n", (2, 1), ("not valid YAML", "spaces, not tabs")),
    "control": (GOOD + "name: \x01\n", (3, 7), ("not valid YAML",)),
    "bomb": ("a: &a [x, x]\n" + "".join(f"{c}: &{c} [{', '.join(f'*{p}' for _ in range(9))}]\n"
             for p, c in zip("abcdefg", "bcdefgh", strict=True)), (1, 1), ("aliases expand to more",)),
    "cycle": ("a: &a [*a]\nb: 1\n", (1, 1), ("aliases expand to more",)),
    "depth": ("a: " + "[" * 500 + "\n", (1, 67), ("nested too deeply",)),
}  # fmt: skip


def test_nesting_that_the_scanner_itself_refuses() -> None:
    """Newer releases of libyaml stop at a depth of their own; older ones leave it to ours."""
    (problem,) = find("a: " + "[" * 100_000 + "\n", lenient=True)
    assert problem.message == "values are nested too deeply"
    assert problem.where is not None
    assert problem.where.line == 1


@pytest.mark.parametrize(("text", "place", "pieces"), FATAL.values(), ids=FATAL.keys())
def test_fatal_problem(text: str, place: tuple[int, int], pieces: tuple[str, ...]) -> None:
    (problem,) = find(text, lenient=True)
    assert problem.where is not None
    assert (problem.where.line, problem.where.column) == place
    assert all(piece in str(problem) for piece in pieces), str(problem)


SLICE = "merge_method: passthrough\nslices:\n- sources:\n  - {model: a, layer_range: %s}\n"


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("[-1, 4]", "is negative"),
        ("[4, 2]", "is reversed"),
        ("[4, 4]", "holds no layer"),
        ("[0, 4, 8]", "two whole numbers"),
        ("[0, 1.5]", "two whole numbers"),
        ("[a, b]", "two whole numbers"),
        ("8", "two whole numbers"),
    ],
)
def test_layer_range(layers: str, message: str) -> None:
    (problem,) = find(SLICE % layers)
    assert str(problem).startswith("<recipe>:4:29: layer_range")
    assert message in problem.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {model: a}", "a slice needs sources"),
        ("- {sources: []}", "a slice without sources"),
        ("- {sources: [{model: a}]}", "without layer_range"),
        ("- {sources: [{layer_range: [0, 1]}]}", "a slice source without model"),
    ],
)
def test_incomplete_slice(text: str, message: str) -> None:
    (problem,) = find(f"merge_method: passthrough\nslices:\n{text}\n")
    assert message in problem.message
    assert problem.where is not None
    assert problem.where.line == 3


# Text, (line, column), pieces of the message. Lenient turns these into warnings.
TOLERABLE: dict[str, tuple[str, tuple[int, int], tuple[str, ...]]] = {
    "typo": (GOOD + "dype: float16\n", (3, 1), ('unknown key "dype" in a recipe', 'did you mean "dtype"')),
    "misplaced parameter": (GOOD + "select_topk: 0.15\n", (3, 1), ("select_topk", "goes under parameters:")),
    "in a model": (
        "merge_method: linear\nmodels: [{model: a, paramets: {}}]\n",
        (2, 21),
        ('did you mean "parameters"',),
    ),
    "in a source": (
        "merge_method: linear\nslices:\n- sources: [{model: a, layer_range: [0, 1], weight: 1}]\n",
        (3, 45),
        ('unknown key "weight" in a slice source',),
    ),
    "in a slice": (
        "merge_method: linear\nslices:\n- {sources: [{model: a, layer_range: [0, 1]}], bse_model: x}\n",
        (3, 48),
        ('did you mean "base_model"',),
    ),
    "in a filter": (GOOD + "parameters: {t: [{filtr: mlp, value: 1}]}\n", (3, 19), ('did you mean "filter"',)),
    "in a reference": (
        "merge_method: linear\nmodels: [{model: {model: a, rev: b}}]\n",
        (2, 29),
        ('unknown key "rev"',),
    ),
    "in tokenizer": (GOOD + "tokenizer: {srce: base}\n", (3, 13), ('did you mean "source"',)),
    "in a rule": (GOOD + "tokenizer: {tokens: {x: {forc: true}}}\n", (3, 26), ('did you mean "force"',)),
    "in a token's source": (
        GOOD + "tokenizer: {tokens: {x: {source: {kind: zero, token: y}}}}\n",
        (3, 47),
        ('unknown key "token" in a source of kind zero',),
    ),
    "no effect": (GOOD + "input_model_parameters: {}\n", (3, 1), ("has no effect",)),
}


@pytest.mark.parametrize(("text", "place", "pieces"), TOLERABLE.values(), ids=TOLERABLE.keys())
def test_tolerable_problem_is_an_error_or_a_warning(text: str, place: tuple[int, int], pieces: tuple[str, ...]) -> None:
    (problem,) = find(text)
    assert problem.where is not None
    assert (problem.where.line, problem.where.column) == place
    assert all(piece in str(problem) for piece in pieces), str(problem)
    assert load_recipe(text, lenient=True).warnings == (problem,)


def test_all_problems_are_found_together_in_file_order() -> None:
    problems = find("dype: x\nmerge_method: linear\nmodels:\n- model: a+b+c\n- {model: c, weihgt: 1}\ndtype: int8\n")
    assert [problem.where.line for problem in problems if problem.where] == [1, 4, 5, 6]


def test_lenient_raises_only_what_it_cannot_tolerate() -> None:
    (problem,) = find("dype: x\nmerge_method: linear\nmodels: []\n", lenient=True)
    assert "needs either" in problem.message


def test_missing_file_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"absent\.yml: cannot read the recipe: No such file"):
        load_recipe(tmp_path / "absent.yml")


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "."])
def test_path_that_cannot_be_a_file(path: str) -> None:
    with pytest.raises(RecipeError, match="recipe"):
        load_recipe(path)


def test_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"ok \xff\xfe")
    with pytest.raises(RecipeError, match=r"not a text file in UTF-8 \(byte 3\)"):
        load_recipe(path)


def test_huge_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as stream:
        stream.truncate(1 << 30)
    with pytest.raises(RecipeError, match="too large for a recipe"):
        load_recipe(path)


def test_mapping_with_a_foreign_value_is_refused() -> None:
    with pytest.raises(RecipeError, match="cannot hold a value of type object"):
        load_recipe({"merge_method": object()})
