"""Mixtures as plans: every tensor and where it comes from, and every mistake that models can make."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys

from pymerge.config.moe_document import load_moe
from pymerge.errors import PymergeError
from pymerge.plan.moe import list_pending, plan_moe
from pymerge.plan.values import MergePlan
from pymerge.schedule import make_schedule

CONFIG = {"hidden_size": toys.WIDTH, "intermediate_size": 48, "num_attention_heads": 4, "vocab_size": toys.VOCABULARY}


@pytest.fixture
def write(here: Path) -> Callable[..., None]:
    """Writes Llama-like models of names into the working directory."""

    def write(*names: str, config: Mapping[str, Any] | None = None, **options: Any) -> None:
        for seed, name in enumerate(names):
            toys.write_llama(here / name, seed=seed, layers=2, config={**CONFIG, **(config or {})}, **options)

    return write


def make(experts: Any = ("x", "y"), *, options: Mapping[str, Any] | None = None, **keys: Any) -> MergePlan:
    document = {
        "base_model": "b",
        "gate_mode": "random",
        "experts": [each if isinstance(each, dict) else {"source_model": each} for each in experts],
        **keys,
    }
    return plan_moe(load_moe(document), **(options or {}))


def refusal(*args: Any, **keys: Any) -> str:
    with pytest.raises(PymergeError) as caught:
        make(*args, **keys)
    return str(caught.value)


def test_every_tensor_has_its_place(write: Callable[..., None]) -> None:
    write("b", "x", "y")
    plan = make()
    assert plan.layers == 2
    assert [str(model.ref) for model in plan.models] == ["x", "y", "b"]
    assert str(plan.models[plan.donor].ref) == "b"
    sources = {task.name: (task.labels[0], task.sources[0].name) for task in plan.tasks}
    inner = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
    layers = {
        f"model.layers.{n}.block_sparse_moe.experts.{number}.{part}.weight": (
            label, f"model.layers.{n}.mlp.{dense}.weight"
        )
        for n in range(2) for number, label in enumerate("xy") for part, dense in inner.items()
    }  # fmt: skip
    routers = {f"model.layers.{n}.block_sparse_moe.gate.weight": ("gate_mode random", "random") for n in range(2)}
    shapes = toys.llama_shapes(layers=2, width=toys.WIDTH, inner=48, vocabulary=toys.VOCABULARY)
    kept = {name: ("b", name) for name in shapes if ".mlp." not in name}
    assert sources == {**kept, **layers, **routers}


def test_what_a_class_leaves_unsaid_is_said(write: Callable[..., None]) -> None:
    write("b", "x", "y", config={"torch_dtype": "float32", "pretraining_tp": 1, "attention_bias": False})
    made = make(experts_per_token=1, dtype="float16").model_config
    assert made["rope_theta"] == 10000.0
    assert made["rms_norm_eps"] == 1e-6
    assert made["num_key_value_heads"] == 4
    assert made["max_position_embeddings"] == 2048
    assert made["torch_dtype"] == "float16"
    assert (made["num_local_experts"], made["num_experts_per_tok"], made["intermediate_size"]) == (2, 1, 48)
    assert (made["model_type"], made["architectures"]) == ("mixtral", ["MixtralForCausalLM"])
    assert made["tie_word_embeddings"] is False
    assert made["output_router_logits"] is False
    assert "pretraining_tp" not in made
    assert "attention_bias" not in made


def test_a_window_of_attention_is_given_up_with_a_warning(write: Callable[..., None]) -> None:
    write("b", "x", "y", config={"model_type": "mistral", "sliding_window": 16, "rope_parameters": {"rope_theta": 5.0}})
    plan = make()
    assert plan.model_config["sliding_window"] is None
    assert "rope_theta" not in plan.model_config
    assert ["attends to the last 16 tokens" in str(warning) for warning in plan.warnings] == [True]


def test_a_base_without_head_makes_a_tied_mixture(write: Callable[..., None]) -> None:
    write("b", head=False)
    write("x", "y")
    plan = make()
    assert plan.model_config["tie_word_embeddings"] is True
    assert "lm_head.weight" not in {task.name for task in plan.tasks}


def test_buffers_of_old_savings_are_left_out_with_a_warning(write: Callable[..., None]) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    write("b", extra={name: np.ones(4, np.float32)})
    write("x", "y")
    plan = make()
    assert name not in {task.name for task in plan.tasks}
    assert [name in str(warning) for warning in plan.warnings] == [True]


def test_a_plan_leaves_open_what_comes_of_prompts(write: Callable[..., None], here: Path) -> None:
    write("b", "x", "y")
    experts = [{"source_model": name, "positive_prompts": [name]} for name in "xy"]
    assert "has no tokenizer files" in refusal(experts, gate_mode="cheap_embed")
    write_tokenizer(here / "b", {"a": 0})
    plan = make(experts, gate_mode="cheap_embed")
    assert list_pending(plan) == {f"model.layers.{n}.block_sparse_moe.gate.weight" for n in range(2)}
    assert make_schedule(plan, shard_size=0).shards


def test_one_shared_expert_makes_a_qwen_of_llamas_with_biases_of_zeros(write: Callable[..., None]) -> None:
    write("b", "x", "y")
    plan = make(shared_experts=[{"source_model": "x", "residual_scale": 0.5}])
    names = {task.name: task for task in plan.tasks}
    assert plan.model_config["model_type"] == "qwen2_moe"
    assert plan.model_config["shared_expert_intermediate_size"] == 48
    assert names["model.layers.1.mlp.shared_expert_gate.weight"].shape == (1, toys.WIDTH)
    assert names["model.layers.1.self_attn.k_proj.bias"].shape == (toys.WIDTH,)
    shared = names["model.layers.0.mlp.shared_expert.down_proj.weight"]
    assert shared.inputs is not None
    assert shared.inputs.per_model["scale"] == (0.5,)


def test_seeds_and_names_have_draws_of_their_own(write: Callable[..., None]) -> None:
    write("b", "x", "y")
    experts = [{"source_model": name, "noise_scale": 0.1} for name in "xy"]
    keys = [
        source.settings[0]
        for seed in (0, 1)
        for task in make(experts, options={"seed": seed}).tasks
        for source in task.sources
        if type(source).__name__ == "Noise"
    ]
    assert len(keys) == 2 * (2 * 2 * 3 + 2) == len(set(keys))


#: What differs in x -> a piece of the message.
EXPERTS: dict[str, tuple[dict[str, Any], str]] = {
    "another type": (
        {"config": {"model_type": "mistral"}},
        'is a model of type "mistral", and the base of type "llama"',
    ),
    "another family": ({"config": {"model_type": "gemma2"}}, 'of type "gemma2"; Mixtral is made of llama, mistral'),
    "another activation": ({"config": {"hidden_act": "gelu"}}, "has hidden_act = gelu, and the base has silu"),
    "more layers": ({"config": {"num_hidden_layers": 3}}, "has num_hidden_layers = 3, and the base has 2"),
    "another width": (
        {"width": 64},
        'has other shapes in 6 tensors: "model.layers.0.mlp.gate_proj.weight" is [48, 64]',
    ),
    "a matrix is missing": ({"drop": ("model.layers.1.mlp.up_proj.weight",)}, "lacks 1 tensors"),
    "biases": (
        {"extra": {"model.layers.0.mlp.up_proj.bias": np.zeros(48, np.float32)}},
        "has biases that experts cannot have",
    ),
    "integers": (
        {"extra": {"model.layers.0.mlp.up_proj.weight": np.zeros((48, toys.WIDTH), np.int32)}},
        "is int32, which is no type of weights",
    ),
}


@pytest.mark.parametrize("name", EXPERTS)
def test_an_expert_that_does_not_fit_is_refused(write: Callable[..., None], name: str) -> None:
    changes, message = EXPERTS[name]
    write("b", "y")
    write("x", **changes)
    assert message in refusal()


def test_an_expert_of_another_type_is_permitted_where_crimes_are(write: Callable[..., None]) -> None:
    write("b", "y")
    write("x", config={"model_type": "mistral"})
    assert make(options={"allow_crimes": True}).model_config["model_type"] == "mixtral"


#: What the base is -> keys of the document, a piece of the message.
BASES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no family": ({"config": {"model_type": "phi3"}}, {}, 'type "phi3", of which no mixture is made'),
    "not into this": ({"config": {"model_type": "qwen2"}}, {"architecture": "mixtral"}, "of which Mixtral is not made"),
    "unknown architecture": ({}, {"architecture": "mistral"}, 'no architecture "mistral" to build'),
    "deepseek": ({}, {"architecture": "DeepSeek"}, "DeepSeek MoE is not built"),
    "qwen without shared": ({"config": {"model_type": "qwen2"}}, {}, "has exactly 1 shared expert; here are 0"),
    "mixtral with shared": (
        {}, {"architecture": "mixtral", "shared_experts": [{"source_model": "x"}]}, "Mixtral has no shared experts",
    ),
    "biases": (
        {"extra": {"model.layers.0.self_attn.o_proj.bias": np.zeros(toys.WIDTH, np.float32)}}, {},
        "has no place for 1 tensors",
    ),
    "a norm is missing": ({"drop": ("model.norm.weight",)}, {}, 'lacks 1 tensors: "model.norm.weight"'),
    "no count": ({"config": {"num_hidden_layers": None}}, {}, "cannot be told: model.layers has 2 layers"),
    "wide heads": (
        {"config": {"head_dim": 16}}, {"shared_experts": [{"source_model": "x"}]}, "are 16 wide, and those of Qwen2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BASES)
def test_a_base_that_does_not_fit_is_refused(write: Callable[..., None], name: str) -> None:
    changes, keys, message = BASES[name]
    write("b", **changes)
    write("x", "y", config=changes.get("config"))
    assert message in refusal(**keys)


def test_all_mistakes_are_told_at_once(write: Callable[..., None]) -> None:
    write("b")
    write("x", config={"hidden_act": "gelu"})
    write("y", config={"hidden_act": "relu"})
    assert refusal().count("has hidden_act") == 2


def test_experts_that_are_one_model_are_refused_unless_they_are_to_be_trained(write: Callable[..., None]) -> None:
    write("b", "x")
    assert "--i-understand-this-is-not-useful-without-training" in refusal(("x", "x"))
    assert len(make(("x", "x"), options={"untrained": True}).models) == 2


def write_tokenizer(folder: Path, tokens: Mapping[str, int]) -> None:
    import tokenizers

    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(dict(tokens), unk_token="a"))
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({}))


def test_an_expert_of_another_tokenizer_is_refused_and_a_token_of_its_own_is_fine(
    write: Callable[..., None], here: Path
) -> None:
    write("b", "x", "y")
    tokens = {"a": 0, **{f"t{n}": n for n in range(1, 500)}}
    write_tokenizer(here / "b", tokens)
    write_tokenizer(here / "x", {**tokens, "more": 500})
    write_tokenizer(here / "y", {**tokens, "t1": 2, "t2": 1})
    assert ["other ids than the base for 2 of 500" in str(warning) for warning in make().warnings] == [True]
    write_tokenizer(here / "y", {"a": 0, **{f"t{n}": 500 - n for n in range(1, 500)}})
    assert 'expert "y" has other ids than the base for 498 of 500 tokens' in refusal()
    assert len(make(options={"lenient": True}).warnings) == 1
