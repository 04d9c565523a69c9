"""Small GGUF files of toy models, by the field's own writer; what its converter does to names and rows is done here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.torch import load_file

#: model_type of a folder -> what its files say besides what all say.
EXTRAS: dict[str, tuple[str, ...]] = {
    "llama": (), "mistral": (), "qwen2": (), "qwen3": ("head_dim",), "gemma2": ("head_dim",), "phi3": (),
}  # fmt: skip
ARCHITECTURES = {"mistral": "llama"}


def read_values(folder: Path) -> dict[str, Any]:
    """A folder's tensors as float32 arrays."""
    return {
        name: tensor.float().numpy()
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def permute(values: Any, heads: int) -> Any:
    """Rows of each head: the pairs that are rotated together become neighbors."""
    return values.reshape(heads, 2, values.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(values.shape)


def write_gguf(folder: Path, path: Path, kind: str = "F32", **metadata: Any) -> dict[str, Any]:
    """Write a folder as one file; returns what its matrices are once quantized, by the folder's names."""
    config = json.loads((folder / "config.json").read_text())
    architecture = ARCHITECTURES.get(config["model_type"], config["model_type"])
    number = next(n for n, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(number, config["num_hidden_layers"])
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_rope_freq_base((config.get("rope_parameters") or config).get("rope_theta", 10000.0))
    writer.add_token_list([f"token {n}" for n in range(config["vocab_size"])])
    writer.add_token_scores([0.5] * config["vocab_size"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if "head_dim" in EXTRAS[config["model_type"]]:
        writer.add_key_length(config["head_dim"])
    if config["model_type"] == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
        writer.add_sliding_window(config["sliding_window"])
    for key, value in metadata.items():
        writer.add_key_value(key.replace("__", "."), *value)
    expected = {}
    for name, values in read_values(folder).items():
        stored = values
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            stored = permute(values, config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"])
        if architecture == "gemma2" and name.endswith("norm.weight"):
            stored = values + np.float32(1)
        type_ = gguf.GGMLQuantizationType[kind if values.ndim > 1 else "F32"]
        codes = gguf.quants.quantize(stored, type_)
        expected[name] = values
        if values.ndim > 1:
            read = gguf.quants.dequantize(codes, type_)
            if stored is not values:  # back again
                heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
                half = values.shape[0] // heads // 2
                read = read.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(values.shape)
            expected[name] = read
        elif stored is not values:
            expected[name] = stored - np.float32(1)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), codes, raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected
