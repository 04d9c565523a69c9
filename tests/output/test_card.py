"""The model card: front matter for hubs, text for people, nothing private, nothing unescaped."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt  # rich brings it
from output.schedules import make_model, make_schedule

from pymerge.config.values import MergeConfig, ModelRef
from pymerge.output.card import escape, find_hub_id, make_card
from pymerge.plan.values import MergePlan


def make_plan(tmp_path: Path, text: str = "merge_method: linear\n") -> MergePlan:
    """A plan of two local models; the recipe's text can be chosen."""
    plan = make_schedule(make_model(tmp_path / "secret" / "one"), make_model(tmp_path / "secret" / "two")).plan
    config = MergeConfig("linear", text=text, base_model=plan.config.base_model)
    return MergePlan(
        config, plan.method, plan.tasks, plan.models, plan.donor, plan.model_config, plan.layers, plan.seed
    )


@pytest.mark.parametrize(
    ("path", "hub_id"),
    [
        ("mistralai/Mistral-7B-v0.1", "mistralai/Mistral-7B-v0.1"),
        ("/data/hub/models--owner--a-name.v2/snapshots/0123abcd", "owner/a-name.v2"),
        ("/data/models/owner/name", None),
        ("./owner/name", None),
        ("name", None),
        ("a/b/c", None),
    ],
)
def test_hub_ids_are_told_from_paths(path: str, hub_id: str | None) -> None:
    assert find_hub_id(path) == hub_id


def test_the_front_matter_is_what_hubs_read(tmp_path: Path) -> None:
    front = yaml.safe_load(make_card(make_plan(tmp_path), "My merge").split("---\n")[1])
    assert front == {"library_name": "transformers", "tags": ["pymerge", "mergekit", "merge"]}


def test_local_paths_shrink_to_their_last_part(tmp_path: Path) -> None:
    card = make_card(make_plan(tmp_path), "My merge")
    assert "secret" not in card
    assert "Base model: `one`" in card
    assert "* `two`" in card


def test_backticks_in_a_recipe_do_not_end_its_block(tmp_path: Path) -> None:
    card = make_card(make_plan(tmp_path, "# ```` tricky\nmerge_method: linear\n"), "My merge")
    assert "`````yaml\n# ```` tricky" in card
    assert card.rstrip().endswith("\n`````")


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_a_title_stays_one_heading(title: str) -> None:
    escaped = escape(title)
    assert len(escaped.splitlines()) <= 1
    assert "<" not in escaped.replace("\\<", "")


#: What a card could be broken with.
PIECES = st.sampled_from(
    ["`", "```", "````yaml", "\n", "\r", "---", "# ", "<script>alert(1)</script>", "<img src=x onerror=y>", "&lt;b&gt;",
     "[a](javascript:b)", "![a](b)", "|", "*", "_", "~~", "\\", "\x1b[2J", "\x9b", "\u2028", "\u202e", "<!--", "-->",
     "tags: [x]", ": ", "'", '"', "owner/name", "/", " ", "a"]
)  # fmt: skip
TEXTS = st.lists(PIECES, min_size=1, max_size=8).map("".join)
#: What a card is made of, and nothing else.
TAGS = {"h1", "p", "ul", "li", "code", "pre"}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> MergePlan:
    return make_plan(tmp_path_factory.mktemp("models"))


@given(title=TEXTS, first=TEXTS, second=TEXTS, recipe=TEXTS)
def test_nothing_that_a_card_quotes_can_act(plan: MergePlan, title: str, first: str, second: str, recipe: str) -> None:
    refs = [ModelRef(first), ModelRef(second)]
    models = tuple(replace(model, ref=ref) for model, ref in zip(plan.models, refs, strict=True))
    config = replace(plan.config, text=recipe, base_model=refs[0])
    card = make_card(replace(plan, config=config, models=models), title)
    front, text = re.fullmatch(r"---\n(.*?)\n---\n(.*)", card, re.DOTALL).groups()
    assert yaml.safe_load(front).keys() <= {"base_model", "library_name", "tags"}
    html = MarkdownIt("commonmark").render(text)
    assert set(re.findall(r"</?([a-z0-9]+)", html)) <= TAGS
    assert html.count("<h1>") == 1
    blocks = re.findall("<pre><code[^>]*>(.*?)</code></pre>", html, re.DOTALL)
    assert len(blocks) == bool(recipe)
    # After the recipe comes nothing.
    assert not recipe or html.endswith("</code></pre>\n")
    quoted = text if not recipe else text[: text.rindex("Recipe:")]
    assert all(c.isprintable() or c == "\n" for c in quoted)
