"""Whatever a recipe file holds: it is read, or refused as a recipe; nothing else is raised."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from pymerge.config import load_recipe
from pymerge.config.moe_document import load_moe
from pymerge.errors import RecipeError

WORDS = st.sampled_from(
    ["merge_method", "models", "slices", "sources", "model", "layer_range", "parameters", "filter", "value",
     "base_model",
     "dtype", "tokenizer", "tokens", "source", "kind", "model_token", "force", "chat_template",
     "<<", "null", "true", "1e-5", ".nan", "a+b", "x@y", "0x1f", "2020-02-30", "=", "", "~"]
)  # fmt: skip
VALUES = st.recursive(
    st.one_of(WORDS, st.none(), st.booleans(), st.integers(), st.floats()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=4)),
    max_leaves=12,
)


@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    with contextlib.suppress(RecipeError):
        load_recipe(text + "\n")


@given(
    st.lists(st.one_of(WORDS, st.sampled_from(list("[]{}:,-&*!|>'\"#%@ \n\t")), st.just(": ")), max_size=24).map(
        "".join
    )
)
def test_any_words_of_yaml(text: str) -> None:
    with contextlib.suppress(RecipeError):
        load_recipe(text + "\n")


@given(st.dictionaries(WORDS, VALUES, max_size=5), st.booleans())
def test_any_mapping(recipe: dict[str, object], lenient: bool) -> None:
    with contextlib.suppress(RecipeError):
        load_recipe(recipe, lenient=lenient)


MOE_WORDS = st.sampled_from(
    ["base_model", "experts", "shared_experts", "gate_mode", "dtype", "experts_per_token", "architecture",
     "source_model", "positive_prompts", "negative_prompts", "noise_scale", "residual_scale", "random", "a+b", "1e999",
     ".nan", "null", "~", ""]
)  # fmt: skip
MOE_VALUES = st.recursive(
    st.one_of(MOE_WORDS, st.none(), st.booleans(), st.integers(), st.floats()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(MOE_WORDS, inner, max_size=4)),
    max_leaves=12,
)


@given(st.dictionaries(MOE_WORDS, MOE_VALUES, max_size=6), st.booleans())
def test_any_mixture(document: dict[str, object], lenient: bool) -> None:
    with contextlib.suppress(RecipeError):
        load_moe(document, lenient=lenient)
