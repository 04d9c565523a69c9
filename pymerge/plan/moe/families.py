"""Mixtures that dense models are put together to: one row for each, and how a document's row is found."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pymerge.config.moe import MoeConfig
from pymerge.config.suggestions import suggest_name
from pymerge.errors import Location
from pymerge.plan.findings import Findings

__all__ = ["LAYERS", "LOOSE", "MLP", "Family", "find_family", "name_in_layer"]

#: Matrices of a dense layer that become an expert's; the last one writes to the residual stream.
MLP = ("gate_proj", "up_proj", "down_proj")
#: What layers are numbered in.
LAYERS = "model.layers"
#: Tensors outside the layers.
LOOSE = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")

_ATTENTION = tuple(f"self_attn.{part}_proj.weight" for part in "qkvo")
_NORMS = ("input_layernorm.weight", "post_attention_layernorm.weight")
_BIASES = tuple(f"self_attn.{part}_proj.bias" for part in "qkv")
_PLAIN = {part: part for part in MLP}
_SPARSE = {"decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True, "use_sliding_window": False,
           "sliding_window": None}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Family:
    """An architecture of mixtures, as its published checkpoints are stored.

    Attributes:
        name: as messages have it; aliases: other spellings that documents may begin to write.
        model_type, model_class: as config.json has them.
        inputs: model types of the dense models.
        shared: how many experts there are that always work.
        parts: dense matrix -> its name in an expert.
        router, expert, shared_router, shared_expert: names within a layer.
        kept: tensors of a layer that the base gives.
        zeros: those of them that may lack, and are zeros then.
        sizes: key of config.json -> the number that it holds: experts, per_token, width, shared_width.
        settings: of config.json, whatever the models are.
        dropped: keys of dense models that mean nothing here, or something else.
        splits: whether the width of a head must be that of the model divided by the number of heads.
    """

    name: str
    aliases: tuple[str, ...]
    model_type: str
    model_class: str
    inputs: tuple[str, ...]
    router: str
    expert: str
    kept: tuple[str, ...]
    sizes: Mapping[str, str]
    settings: Mapping[str, Any]
    shared: int = 0
    parts: Mapping[str, str] = field(default_factory=lambda: _PLAIN)
    shared_router: str = ""
    shared_expert: str = ""
    zeros: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ("layer_types", "max_window_layers", "pretraining_tp", "mlp_bias", "attention_bias")
    splits: bool = False


#: The first one that fits is chosen where a document names none.
FAMILIES = (
    Family(
        name="Mixtral",
        aliases=("mixtral",),
        model_type="mixtral",
        model_class="MixtralForCausalLM",
        inputs=("llama", "mistral"),
        parts={"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"},
        router="block_sparse_moe.gate.weight",
        expert="block_sparse_moe.experts.{number}.{part}.weight",
        kept=(*_ATTENTION, *_NORMS),
        sizes={"num_local_experts": "experts", "num_experts_per_tok": "per_token", "intermediate_size": "width"},
        settings={"sliding_window": None},
    ),
    Family(
        name="Qwen2-MoE",
        aliases=("qwenmoe", "qwen2moe"),
        model_type="qwen2_moe",
        model_class="Qwen2MoeForCausalLM",
        inputs=("qwen2", "llama", "mistral"),
        shared=1,
        router="mlp.gate.weight",
        expert="mlp.experts.{number}.{part}.weight",
        shared_router="mlp.shared_expert_gate.weight",
        shared_expert="mlp.shared_expert.{part}.weight",
        kept=(*_ATTENTION, *_BIASES, *_NORMS),
        zeros=_BIASES,
        sizes={"num_experts": "experts", "num_experts_per_tok": "per_token", "moe_intermediate_size": "width",
               "shared_expert_intermediate_size": "shared_width"},
        settings={**_SPARSE, "qkv_bias": True},
        splits=True,
    ),
    Family(
        name="Qwen3-MoE",
        aliases=("qwen3moe",),
        model_type="qwen3_moe",
        model_class="Qwen3MoeForCausalLM",
        inputs=("qwen3",),
        router="mlp.gate.weight",
        expert="mlp.experts.{number}.{part}.weight",
        kept=(*_ATTENTION, *_NORMS, "self_attn.q_norm.weight", "self_attn.k_norm.weight"),
        sizes={"num_experts": "experts", "num_experts_per_tok": "per_token", "moe_intermediate_size": "width"},
        settings=_SPARSE,
    ),
)  # fmt: skip


def name_in_layer(layer: int, rest: str) -> str:
    """Name of a tensor of a layer."""
    return f"{LAYERS}.{layer}.{rest}"


def find_family(config: MoeConfig, model_type: str, findings: Findings) -> Family | None:
    """The family of the output; None, with a problem added, if there is none.

    Args:
        model_type: the base's.
    """
    wanted = re.sub(r"[\W_]", "", config.architecture or "").lower()
    if wanted and "deepseekmoe".startswith(wanted):
        findings.add(
            "DeepSeek MoE is not built: its layers are those of a class that comes with its checkpoints, not with "
            "transformers",
            config.kind_where,
            "with one shared expert, architecture: qwen takes llama and mistral models too",
        )
        return None
    named = [family for family in FAMILIES if any(alias.startswith(wanted) for alias in family.aliases)]
    if not named:
        hint = suggest_name(wanted, [family.model_type for family in FAMILIES], "architectures")
        findings.add(f'there is no architecture "{config.architecture}" to build', config.kind_where, hint)
        return None
    fitting = [family for family in named if model_type in family.inputs]
    if not fitting:
        takes = "; ".join(f"{family.name} from {', '.join(family.inputs)}" for family in FAMILIES)
        what = f'the base is a model of type "{model_type}"'
        into = f", of which {named[0].name} is not made" if wanted else ", of which no mixture is made"
        findings.add(what + into, config.base_model.where, takes)
        return None
    chosen = next((family for family in fitting if family.shared == len(config.shared)), None)
    if chosen is None:
        _refuse_shared(config, fitting, findings)
    return chosen


def _refuse_shared(config: MoeConfig, families: list[Family], findings: Findings) -> None:
    needs = "; ".join(
        f"{family.name} has {f'exactly {family.shared} shared expert' if family.shared else 'no shared experts'}"
        for family in families
    )
    where: Location | None = config.shared[0].where if config.shared else config.kind_where or config.base_model.where
    findings.add(f"{needs}; here are {len(config.shared)}", where, "shared_experts: [{source_model: ...}]")
