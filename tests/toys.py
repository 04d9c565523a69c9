"""Small checkpoints for tests: real ones from transformers, plain ones from numpy, and stand-ins.

A stand-in is a checkpoint of any size without data: right headers, sparse files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

#: Size of all toy models; vocabulary, width and layer count differ, so that shapes tell them apart.
VOCABULARY, WIDTH, LAYERS = 96, 32, 4

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GPT2 = {"vocab_size": VOCABULARY, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4, "n_positions": 64}

#: Family -> (model class, config class, settings), names as in transformers.
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", _COMMON),
    "mistral": ("MistralForCausalLM", "MistralConfig", _COMMON),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", {**_COMMON, "max_window_layers": 2, "use_sliding_window": True,
              "sliding_window": 16, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**_COMMON, "head_dim": 8}),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {**_COMMON, "head_dim": 8, "sliding_window": 16}),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", _COMMON),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {**_GPT2, "bos_token_id": 1, "eos_token_id": 2}),
    "gpt_neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", {**_COMMON, "tie_word_embeddings": False}),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", {**_COMMON, "num_local_experts": 2, "num_experts_per_tok": 1}),
    "t5": ("T5ForConditionalGeneration", "T5Config", {"vocab_size": VOCABULARY, "d_model": WIDTH, "d_kv": 8, "d_ff": 48,
           "num_layers": 3, "num_decoder_layers": LAYERS, "num_heads": 4, "decoder_start_token_id": 0}),
}  # fmt: skip


def save_toy(family: str, folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Build a small model of a family with transformers and save it; `changes` go to its config."""
    import torch
    import transformers

    model_class, config_class, settings = FAMILIES[family]
    torch.manual_seed(seed)
    config = getattr(transformers, config_class)(**{**settings, **changes})
    model = getattr(transformers, model_class)(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    return folder


def llama_shapes(
    *, layers: int, width: int, inner: int, vocabulary: int, kv_width: int | None = None, head: bool = True
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Llama-like model; `kv_width` is the rows of k_proj and v_proj."""
    kv = width if kv_width is None else kv_width
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, width)}
    for index in range(layers):
        prefix = f"model.layers.{index}."
        shapes |= {
            prefix + "input_layernorm.weight": (width,),
            prefix + "self_attn.q_proj.weight": (width, width),
            prefix + "self_attn.k_proj.weight": (kv, width),
            prefix + "self_attn.v_proj.weight": (kv, width),
            prefix + "self_attn.o_proj.weight": (width, width),
            prefix + "post_attention_layernorm.weight": (width,),
            prefix + "mlp.gate_proj.weight": (inner, width),
            prefix + "mlp.up_proj.weight": (inner, width),
            prefix + "mlp.down_proj.weight": (width, inner),
        }
    shapes["model.norm.weight"] = (width,)
    if head:
        shapes["lm_head.weight"] = (vocabulary, width)
    return shapes


def llama_config(layers: int = LAYERS, vocabulary: int = VOCABULARY, **changes: Any) -> dict[str, Any]:
    """config.json of a Llama-like model."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": layers,
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        **changes,
    }


def write_checkpoint(folder: Path, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> Path:
    """Write numpy arrays (ml_dtypes' bfloat16 included) as a single-file checkpoint."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(dict(config)))
    return folder


def write_llama(
    folder: Path, *, seed: int = 0, layers: int = LAYERS, dtype: Any = np.float32, head: bool = True,
    vocabulary: int = VOCABULARY, width: int = WIDTH, config: Mapping[str, Any] | None = None,
    extra: Mapping[str, np.ndarray] | None = None, drop: Sequence[str] = (),
) -> Path:  # fmt: skip
    """Write a small Llama-like checkpoint with random weights, some changed as the test needs."""
    random = np.random.default_rng(seed)
    shapes = llama_shapes(layers=layers, width=width, inner=48, vocabulary=vocabulary, head=head)
    tensors = {name: random.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    tensors.update(extra or {})
    kept = {name: tensor for name, tensor in tensors.items() if name not in drop}
    return write_checkpoint(folder, kept, llama_config(layers, vocabulary, **(config or {})))


_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8}


def header_bytes(tensors: Mapping[str, tuple[str, Sequence[int]]]) -> tuple[bytes, int]:
    """Safetensors header, length prefix included, and the number of data bytes after it."""
    end = 0
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for name, (code, shape) in tensors.items():
        begin, end = end, end + int(np.prod(shape, dtype=np.int64)) * _BITS[code] // 8
        entries[name] = {"dtype": code, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, end


def write_stand_in(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, tuple[str, Sequence[int]]], *, shards: int = 1
) -> Path:
    """Write a checkpoint without data: each file has its header and its full length, all holes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(config)))
    names = list(tensors)
    weight_map = {}
    for shard in range(shards):
        file = "model.safetensors" if shards == 1 else f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = names[shard * len(names) // shards : (shard + 1) * len(names) // shards]
        header, size = header_bytes({name: tensors[name] for name in part})
        with (folder / file).open("wb") as stream:
            stream.write(header)
            stream.truncate(len(header) + size)
        weight_map.update(dict.fromkeys(part, file))
    if shards > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


#: Full-size layouts of the families that published recipes merge.
FULL_SIZE: dict[str, dict[str, int]] = {
    "llama2-70b": {"layers": 80, "width": 8192, "kv_width": 1024, "inner": 28672, "vocabulary": 32000},
    "llama3-70b": {"layers": 80, "width": 8192, "kv_width": 1024, "inner": 28672, "vocabulary": 128256},
    "mistral-7b": {"layers": 32, "width": 4096, "kv_width": 1024, "inner": 14336, "vocabulary": 32000},
    "mistral-nemo-12b": {"layers": 40, "width": 5120, "kv_width": 1024, "inner": 14336, "vocabulary": 131072},
    "minitron-4b": {"layers": 32, "width": 3072, "kv_width": 1024, "inner": 9216, "vocabulary": 128256},
}


@cache
def _full_shapes(layout: str) -> dict[str, tuple[int, ...]]:
    return llama_shapes(**FULL_SIZE[layout])


def write_full_size(folder: Path, layout: str, *, layers: int | None = None, shards: int = 3) -> Path:
    """Write a full-size stand-in in bfloat16; `layers` overrides the layout's."""
    settings = FULL_SIZE[layout]
    count = layers or settings["layers"]
    shapes = _full_shapes(layout) if layers is None else llama_shapes(**{**settings, "layers": count})
    config = llama_config(count, settings["vocabulary"], hidden_size=settings["width"])
    return write_stand_in(folder, config, {name: ("BF16", shape) for name, shape in shapes.items()}, shards=shards)
