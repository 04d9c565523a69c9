"""What recipes may say, and how it is understood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pymerge.config import Case, Cases, Gradient, MergeConfig, ModelRef, ModelToken, TokenRule, load_recipe
from pymerge.errors import Location


def load(body: str, **options: Any) -> MergeConfig:
    return load_recipe("merge_method: linear\nmodels: [{model: a}]\n" + body + "\n", **options)


def parameter(text: str) -> Any:
    setting = load(f"parameters: {{p: {text}}}").parameters.get("p")
    return setting.value if setting else None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5", 0.5),
        ("3", 3),
        ("1e-5", 1e-5),
        ("'0.25'", 0.25),
        ("true", True),
        ("inverse", "inverse"),
        ("[0, 0.5, 1]", Gradient((0, 0.5, 1))),
        ("[0.75]", Gradient((0.75,))),
        ("[true, false]", Gradient((True, False))),
        ("[]", None),
    ],
)
def test_setting_forms(text: str, value: Any) -> None:
    assert parameter(text) == value


def test_conditional_list_keeps_order_filters_and_places() -> None:
    cases = parameter("[{filter: mlp, value: [1, 0]}, {value: 0.5}]")
    assert cases == Cases(
        (
            Case(Gradient((1, 0)), "mlp", Location("<recipe>", 3, 39)),
            Case(0.5, None, Location("<recipe>", 3, 56)),
        )
    )


def test_bare_filter_entry_is_a_conditional_list_of_one() -> None:
    cases = parameter("{filter: mlp, value: 0.1}")
    assert isinstance(cases, Cases)
    assert [(case.filter, case.value) for case in cases.cases] == [("mlp", 0.1)]


def test_filter_that_looks_like_a_number_is_text() -> None:
    assert parameter("[{filter: 10, value: 1}]").cases[0].filter == "10"


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("org/name", ModelRef("org/name")),
        ("org/name@main", ModelRef("org/name", "main")),
        ("./a folder/x", ModelRef("./a folder/x")),
        ("2024-01-01", ModelRef("2024-01-01")),
        ("007", ModelRef("007")),
        ("{model: org/name@v2}", ModelRef("org/name", "v2")),
        ("{model: {path: 'a@b+c', revision: r}}", ModelRef("a@b+c", "r")),
        ("{model: a, override_architecture: X}", ModelRef("a", override_architecture="X")),
    ],
)
def test_model_reference_forms(text: str, ref: ModelRef) -> None:
    config = load_recipe(f"merge_method: linear\nmodels: [{{model: {text}}}]\n")
    assert config.models[0].model == ref


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32", "float64", "torch.bfloat16"])
def test_dtype_names(name: str) -> None:
    config = load(f"dtype: {name}\nout_dtype: {name}")
    assert config.dtype is config.out_dtype is not None
    assert config.dtype.name == name.removeprefix("torch.")


def test_slices_in_flow_style_with_base_and_parameters() -> None:
    config = load_recipe(
        "merge_method: slerp\n"
        "slices:\n"
        "- {sources: [{model: a, layer_range: [0, '8'], parameters: {weight: 1}}, {model: b, layer_range: [8, 16.0]}],"
        " base_model: b, parameters: {t: 0.5}}\n"
    )
    (piece,) = config.slices
    assert [source.layer_range for source in piece.sources] == [(0, 8), (8, 16)]
    assert piece.base_model == ModelRef("b")
    assert piece.parameters["t"].value == 0.5
    assert piece.sources[0].parameters["weight"].value == 1


def test_anchors_and_merge_keys() -> None:
    config = load_recipe(
        "merge_method: ties\nbase_model: base\nmodels:\n"
        "- {model: a, parameters: &p {weight: 0.5, density: 0.3}}\n"
        "- {model: b, parameters: *p}\n"
        "- {model: c, parameters: {<<: *p, weight: 0.9}}\n"
    )
    weights = [entry.parameters["weight"].value for entry in config.models]
    assert weights == [0.5, 0.5, 0.9]
    assert config.models[2].parameters["density"].value == 0.3


def test_hundreds_of_slices() -> None:
    body = "".join(f"- sources: [{{model: m, layer_range: [{i}, {i + 1}]}}]\n" for i in range(500))
    assert len(load_recipe("merge_method: passthrough\nslices:\n" + body).slices) == 500


def test_empty_list_of_models_counts_as_absent() -> None:
    config = load_recipe(
        "merge_method: passthrough\nmodels: []\nslices:\n- sources: [{model: a, layer_range: [0, 1]}]\n"
    )
    assert not config.models
    assert len(config.slices) == 1


def test_null_keys_count_as_absent() -> None:
    config = load("slices:\nbase_model:\nparameters:\ndtype:\ntokenizer_source:\nchat_template: null")
    assert config.base_model is None
    assert config.dtype is None
    assert config.tokenizer is None
    assert config.chat_template is None


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("tokenizer_source: union", "union"),
        ("tokenizer_source: base", "base"),
        ("tokenizer_source: org/name@v2", ModelRef("org/name", "v2")),
        ("tokenizer_source: model:org/name", ModelRef("org/name")),
        ("tokenizer_source: 'model: org/name'", ModelRef("org/name")),
        ("tokenizer_source: {model: {path: a@b}}", ModelRef("a@b")),
        ("tokenizer: {source: model:a}", ModelRef("a")),
        ("tokenizer: {}", "union"),
        ("tokenizer: {source: , tokens: }", "union"),
    ],
)
def test_tokenizer_source_forms(text: str, source: object) -> None:
    setting = load(text).tokenizer
    assert setting is not None
    assert setting.source == source
    assert not setting.tokens


def test_rules_of_tokens_keep_order_and_places() -> None:
    setting = load(
        "tokenizer:\n"
        "  pad_to_multiple_of: 64\n"
        "  tokens:\n"
        "    <|a|>: {source: b, force: true}\n"
        "    <|b|>: {source: {kind: zero}}\n"
        "    <|c|>: {source: {kind: model_token, model: c, token: '</s>'}}\n"
        "    <|d|>: {source: {kind: model_token, model: d, token_id: 7}}\n"
        "    7:\n"
    ).tokenizer
    assert setting is not None
    assert list(setting.tokens.items()) == [
        ("<|a|>", TokenRule(ModelRef("b"), True)),
        ("<|b|>", TokenRule("zero")),
        ("<|c|>", TokenRule(ModelToken(ModelRef("c"), "</s>"))),
        ("<|d|>", TokenRule(ModelToken(ModelRef("d"), None, 7))),
        ("7", TokenRule()),
    ]
    assert setting.pad_to_multiple_of == 64
    assert setting.references == (ModelRef("b"), ModelRef("c"), ModelRef("d"))
    assert setting.tokens["<|b|>"].where == Location("<recipe>", 7, 5)


@pytest.mark.parametrize("text", ["auto", "chatml", "{% for m in messages %}{{ m.content }}{% endfor %}"])
def test_chat_template_forms(text: str) -> None:
    template = load(f"chat_template: '{text}'").chat_template
    assert template is not None
    assert template.text == text
    assert template.where == Location("<recipe>", 3, 16)


def test_stage_name_is_accepted() -> None:
    assert load("name: stage-one").merge_method == "linear"


def test_text_is_kept_verbatim(tmp_path: Path) -> None:
    text = "# mine\nmerge_method: linear\nmodels: [{model: a}]\n"
    path = tmp_path / "r.yml"
    path.write_text(text)
    config = load_recipe(path)
    assert config.text == text
    assert config.name == str(path)
    assert config.method_where == Location(str(path), 2, 15)


def test_mapping_reads_as_its_yaml() -> None:
    config = load_recipe(
        {
            "merge_method": "slerp",
            "base_model": Path("x/a"),
            "models": ({"model": "b"},),
            "parameters": {"t": [0, 1e-5]},
        }
    )
    assert config.base_model == ModelRef("x/a")
    assert config.parameters["t"].value == Gradient((0, 1e-5))
    assert load_recipe(config.text).parameters["t"].value == Gradient((0, 1e-5))


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.parent.glob("recipes/*.yml")), ids=lambda path: path.stem)
def test_published_recipes_are_read(path: Path) -> None:
    for document in path.read_text().split("\n---\n"):
        assert load_recipe(document + "\n").merge_method
