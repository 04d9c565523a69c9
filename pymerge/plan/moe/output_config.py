"""config.json of a mixture: the base's, with what its class leaves unsaid, and with what the experts are."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pymerge.checkpoint import Checkpoint
from pymerge.config.moe import MoeConfig
from pymerge.dtypes import BY_NAME, DType
from pymerge.plan.findings import Findings
from pymerge.plan.moe.families import LOOSE, Family

__all__ = ["find_dtype", "make_moe_config"]

_DTYPE_KEYS = ("torch_dtype", "dtype")
_COMMON = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0}
#: What a class takes for a key that config.json of a dense model lacks: the mixture's class would take something else.
_UNSAID: Mapping[str, Mapping[str, Any]] = {
    "llama": {**_COMMON, "max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2},
    "mistral": {**_COMMON, "max_position_embeddings": 131072, "num_key_value_heads": 8, "bos_token_id": 1,
                "eos_token_id": 2},
    "qwen2": {**_COMMON, "max_position_embeddings": 32768, "num_key_value_heads": 32},
    "qwen3": {**_COMMON, "max_position_embeddings": 32768, "num_key_value_heads": 32, "head_dim": 128},
}  # fmt: skip


def find_dtype(config: MoeConfig, base: Checkpoint) -> DType:
    """The type of the output: the document's, that of the base's config.json, or that of its embedding."""
    if config.dtype is not None:
        return config.dtype
    said = next((base.config[key] for key in _DTYPE_KEYS if isinstance(base.config.get(key), str)), "")
    known = BY_NAME.get(said.removeprefix("torch."))
    if known is not None and known.mergeable:
        return known
    embedding = base.tensors.get(LOOSE[0])
    return embedding.origin if embedding is not None else BY_NAME["bfloat16"]


def make_moe_config(
    base: Checkpoint, family: Family, sizes: Mapping[str, int], dtype: DType, findings: Findings
) -> dict[str, Any]:
    """Return config.json; `sizes` holds what `family.sizes` names."""
    made = copy.deepcopy(dict(base.config))
    if made.get("sliding_window") is not None and made.get("use_sliding_window", True) is not False:
        findings.warn(
            f'"{base.ref}" attends to the last {made["sliding_window"]} tokens, and {family.name} to all of them',
            base.ref.where,
        )
    for key, value in _UNSAID.get(str(base.config.get("model_type")), {}).items():
        # Newer files keep it among the parameters of rotations.
        if key not in made and not (key == "rope_theta" and made.get("rope_parameters")):
            made[key] = value
    if made.get("num_key_value_heads") is None and "num_attention_heads" in made:
        made["num_key_value_heads"] = made["num_attention_heads"]
    for key in family.dropped:
        made.pop(key, None)
    for key in (key for key in _DTYPE_KEYS if key in made or key == _DTYPE_KEYS[0]):
        if key in made or "dtype" not in made:
            made[key] = dtype.name
    return {
        **made,
        "architectures": [family.model_class],
        "model_type": family.model_type,
        "tie_word_embeddings": LOOSE[2] not in base.tensors or bool(made.get("tie_word_embeddings", False)),
        **copy.deepcopy(dict(family.settings)),
        **{key: sizes[what] for key, what in family.sizes.items()},
        "output_router_logits": False,
    }
