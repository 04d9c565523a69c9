"""What GGUF files call the tensors and settings of a family, and what its folders call them: tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FAMILIES", "Family", "find_name", "name_in_file"]

_LOOSE = {"token_embd": "model.embed_tokens", "output": "lm_head", "output_norm": "model.norm"}
_ATTENTION = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_INNER = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}

#: Key of the metadata, without the architecture before it -> key of config.json.
_SETTINGS = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.key_length": "head_dim",
    "context_length": "max_position_embeddings",
    "rope.freq_base": "rope_theta",
}


@dataclass(frozen=True, slots=True)
class Family:
    """An architecture of GGUF files.

    Attributes:
        model_type, model_class: as config.json names it.
        layer: what is before `.weight` behind `blk.<n>.` -> behind `model.layers.<n>.`.
        settings: keys of the metadata -> of config.json.
        biases: what has one, of `layer`.
        permuted: what of `layer` has the rows of each head in another order: pairs that are rotated together are
            neighbors in the file, half a head apart in the folder.
        norms_of_one: whether norms are stored with one added.
        constants: of config.json.
    """

    model_type: str
    model_class: str
    layer: Mapping[str, str]
    settings: Mapping[str, str] = field(default_factory=lambda: _SETTINGS)
    biases: tuple[str, ...] = ()
    permuted: tuple[str, ...] = ()
    norms_of_one: bool = False
    constants: Mapping[str, Any] = field(default_factory=lambda: {"hidden_act": "silu"})


FAMILIES: dict[str, Family] = {
    # Of Llama, Mistral and what is built like them.
    "llama": Family(
        "llama", "LlamaForCausalLM", {**_ATTENTION, **_NORMS, **_INNER}, permuted=("attn_q", "attn_k"),
    ),
    "qwen2": Family(
        "qwen2", "Qwen2ForCausalLM", {**_ATTENTION, **_NORMS, **_INNER}, biases=("attn_q", "attn_k", "attn_v"),
    ),
    "qwen3": Family(
        "qwen3", "Qwen3ForCausalLM",
        {**_ATTENTION, **_NORMS, **_INNER, "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"},
    ),
    "gemma2": Family(
        "gemma2", "Gemma2ForCausalLM",
        {**_ATTENTION, **_INNER, "attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm",
         "ffn_norm": "pre_feedforward_layernorm", "post_ffw_norm": "post_feedforward_layernorm"},
        settings={**_SETTINGS, "attn_logit_softcapping": "attn_logit_softcapping",
                  "final_logit_softcapping": "final_logit_softcapping", "attention.sliding_window": "sliding_window"},
        norms_of_one=True,
        constants={"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"},
    ),
    "phi3": Family(
        "phi3", "Phi3ForCausalLM",
        {"attn_qkv": "self_attn.qkv_proj", "attn_output": "self_attn.o_proj", **_NORMS,
         "ffn_up": "mlp.gate_up_proj", "ffn_down": "mlp.down_proj"},
        settings={**_SETTINGS, "attention.sliding_window": "sliding_window",
                  "rope.scaling.original_context_length": "original_max_position_embeddings"},
    ),
}  # fmt: skip


def find_name(family: Family, name: str) -> tuple[str, str] | None:
    """(the folder's name of a tensor, what of the family it is); None if the family has no such tensor."""
    stem, _, end = name.rpartition(".")
    if stem in _LOOSE and end == "weight":
        return f"{_LOOSE[stem]}.weight", stem
    block, _, rest = stem.partition(".")
    index, _, part = rest.partition(".")
    # Numbers with leading zeros would name a layer twice.
    if block != "blk" or not index.isascii() or not index.isdecimal() or str(int(index[:9])) != index:
        return None
    if part not in family.layer or not (end == "weight" or (end == "bias" and part in family.biases)):
        return None
    return f"model.layers.{index}.{family.layer[part]}.{end}", part


def name_in_file(family: Family, name: str) -> tuple[str, str] | None:
    """(the file's name of a folder's tensor, what of the family it is): the inverse of `find_name`."""
    stem, _, end = name.rpartition(".")
    for part, folder_stem in _LOOSE.items():
        if stem == folder_stem and end == "weight":
            return f"{part}.weight", part
    lead, _, rest = stem.removeprefix("model.layers.").partition(".")
    for part, folder_stem in family.layer.items():
        if rest == folder_stem and lead.isdecimal():
            written = f"blk.{lead}.{part}.{end}"
            return (written, part) if find_name(family, written) == (name, part) else None
    return None
