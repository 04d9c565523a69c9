"""config.json follows its layers when they are rearranged."""

from __future__ import annotations

from typing import Any

import pytest

from pymerge.checkpoint import Stack, restack_config

STACK = Stack("model.layers", 4, (("num_hidden_layers",),))
#: Layers 0, 1, 2, 1, 2, 3 of one model.
ORDER = (0, 1, 2, 1, 2, 3)


def restack(config: dict[str, Any], order: tuple[int, ...] = ORDER) -> tuple[dict[str, Any], list[str]]:
    config = {"num_hidden_layers": 4, **config}
    return restack_config(config, STACK, [(config, layer) for layer in order])


def test_layer_count() -> None:
    assert restack({})[0] == {"num_hidden_layers": 6}


def test_the_donor_is_left_alone() -> None:
    config = {"num_hidden_layers": 4, "layer_types": list("abcd")}
    restack_config(config, STACK, [(config, 3)])
    assert config == {"num_hidden_layers": 4, "layer_types": list("abcd")}


def test_count_in_a_nested_section_and_under_two_keys() -> None:
    config = {"text_config": {"num_hidden_layers": 4, "n_layer": 4, "layer_types": list("abcd")}}
    stack = Stack("m", 4, (("text_config", "num_hidden_layers"), ("text_config", "n_layer")))
    result, _ = restack_config(config, stack, [(config, 3), (config, 0)])
    assert result == {"text_config": {"num_hidden_layers": 2, "n_layer": 2, "layer_types": ["d", "a"]}}


@pytest.mark.parametrize(
    ("key", "before", "after"),
    [
        ("layer_types", list("abcd"), list("abcbcd")),
        ("num_key_value_heads", [1, 2, 3, 4], [1, 2, 3, 2, 3, 4]),
        ("block_configs", [{"n": i} for i in range(4)], [{"n": i} for i in ORDER]),
        ("hybrid_override_pattern", "M-*E", "M-*-*E"),
        ("architectures", ["a", "b", "c", "d"], ["a", "b", "c", "d"]),
        ("other_list", [1, 2], [1, 2]),
        ("mlp_only_layers", [0, 2], [0, 2, 4]),
        ("mlp_only_layers", [0, 1, 2, 3], [0, 1, 2, 3, 4, 5]),
        ("first_k_dense_replace", 1, 1),
        ("max_window_layers", 1, 1),
        ("max_window_layers", 28, 28),
    ],
)
def test_what_lists_layers_follows(key: str, before: object, after: object) -> None:
    result, remarks = restack({key: before})
    assert result[key] == after
    assert remarks == []


def test_run_length_code_of_gpt_neo_follows() -> None:
    kinds = ["global", "local", "global", "local"]
    result, _ = restack({"attention_types": [[["global", "local"], 2]], "attention_layers": kinds}, (1, 0))
    assert result["attention_layers"] == ["local", "global"]
    assert result["attention_types"] == [[["local", "global"], 1]]


def test_entries_come_from_the_model_that_gives_the_layer() -> None:
    donor = {"num_hidden_layers": 4, "layer_types": list("abcd")}
    other = {"num_hidden_layers": 4, "layer_types": list("wxyz")}
    silent = {"num_hidden_layers": 4}
    result, _ = restack_config(donor, STACK, [(donor, 0), (other, 1), (silent, 2)])
    assert result["layer_types"] == ["a", "x", "c"]


def test_threshold_covers_the_copied_layers() -> None:
    assert restack({"first_k_dense_replace": 2}, (0, 1, 0, 1, 2, 3))[0]["first_k_dense_replace"] == 4


def test_threshold_that_cannot_be_said() -> None:
    result, (remark,) = restack({"first_k_dense_replace": 2})
    assert result["first_k_dense_replace"] == 2
    assert "output layer 2 is of the later kind and layer 3 of the first kind" in remark


def test_unused_window_threshold_needs_no_remark() -> None:
    assert restack({"max_window_layers": 2, "use_sliding_window": False})[1] == []
    assert restack({"max_window_layers": 2, "use_sliding_window": True})[1] != []


@pytest.mark.parametrize("config", [{"sliding_window_pattern": 2}, {"model_type": "gemma2"}])
def test_broken_period_is_remarked(config: dict[str, Any]) -> None:
    _, (remark,) = restack(config, (0, 1, 1, 2))
    assert "output layer 2 comes from layer 1: begin slices at multiples of 2" in remark


def test_kept_period_needs_no_remark() -> None:
    assert restack({"sliding_window_pattern": 2}, (0, 1, 0, 1, 2, 3))[1] == []


def test_listed_layers_make_a_period_irrelevant() -> None:
    assert restack({"model_type": "gemma2", "layer_types": list("sfsf")}, (0, 1, 1, 2))[1] == []


def test_layers_in_their_old_order_change_nothing() -> None:
    config = {"max_window_layers": 28, "layer_types": list("abcd"), "sliding_window_pattern": 3}
    assert restack(config, (0, 1, 2, 3)) == ({"num_hidden_layers": 4, **config}, [])
