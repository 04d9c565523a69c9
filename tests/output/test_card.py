"""The model card: front matter for hubs, text for people, nothing private, nothing unescaped."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from output.schedules import make_model, make_schedule

from pymerge.config.values import MergeConfig
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
