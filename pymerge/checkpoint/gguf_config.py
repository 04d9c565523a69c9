"""config.json of a GGUF file, from its metadata."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pymerge.checkpoint.gguf_families import Family
from pymerge.checkpoint.gguf_header import GgufHeader, GgufTensor
from pymerge.errors import FormatError

__all__ = ["list_factors", "make_config"]

#: Without these no model can be built.
_NEEDED = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "rms_norm_eps")
_FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_TOKENS = {"bos": "bos_token_id", "eos": "eos_token_id", "padding": "pad_token_id"}

#: Of Llama 3.1 and later: (factor, low and high frequency factors, positions before), which a file holds worked out.
_LLAMA3 = ((8.0, 1.0, 4.0, 8192), (32.0, 1.0, 4.0, 8192), (16.0, 1.0, 4.0, 8192), (16.0, 1.0, 1.0, 8192))

#: Reads a short tensor of floats.
Read = Callable[[Path, GgufTensor], tuple[float, ...]]


def make_config(
    path: Path, header: GgufHeader, name: str, family: Family, tensors: Mapping[str, GgufTensor], read: Read
) -> dict[str, Any]:
    """Return config.json.

    Args:
        name: of the architecture in the metadata.
        tensors: by their names in the file.

    Raises:
        FormatError: the metadata lack what is needed, or positions are scaled in a way that is not known.
    """
    metadata = header.metadata
    config: dict[str, Any] = {"architectures": [family.model_class], "model_type": family.model_type}
    config |= family.constants
    for key, target in family.settings.items():
        value = metadata.get(f"{name}.{key}")
        if value is not None:
            config[target] = _read_number(path, f"{name}.{key}", value)
    embedding = tensors.get("token_embd.weight")
    lacking = [key for key in _NEEDED if key not in config] + ([] if embedding else ["token_embd.weight"])
    if lacking or embedding is None:
        raise FormatError(f"{path}: the metadata do not give {', '.join(lacking)}; use the original weights")
    if len(embedding.shape) != 2:
        raise FormatError(f"{path}: token_embd.weight is no matrix; download the file again")
    config.setdefault("num_key_value_heads", config["num_attention_heads"])
    config["vocab_size"] = embedding.shape[0]
    config["tie_word_embeddings"] = "output.weight" not in tensors
    config["torch_dtype"] = _find_dtype(header)
    for key, target in _TOKENS.items():
        value = metadata.get(f"tokenizer.ggml.{key}_token_id")
        # None where there is none: some families have another one by themselves.
        config[target] = value if type(value) is int else None
    config |= dict(_describe_positions(path, metadata, name, config, tensors, read))
    if name == "gemma2":
        # Not in the metadata: the head's size, but in the largest model, of 46 layers.
        width = config["hidden_size"] // config["num_attention_heads"]
        config["query_pre_attn_scalar"] = width if config["num_hidden_layers"] == 46 else config.get("head_dim", width)
    return config


def _find_dtype(header: GgufHeader) -> str:
    """The type of most bytes; of quantized files the usual one."""
    sizes: Counter[str] = Counter()
    for tensor in header.tensors:
        sizes[tensor.kind] += tensor.nbytes
    return _FLOATS.get(sizes.most_common(1)[0][0], "bfloat16")


def _read_number(path: Path, key: str, value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
        raise FormatError(f"{path}: {key} is {str(value)[:100]}, and one number above 0 is expected")
    return _shorten(value)


def _shorten(value: float) -> float:
    """A float32 of the file with the few digits that it was given with."""
    return float(f"{value:.7g}") if isinstance(value, float) else value


def _describe_positions(
    path: Path, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any], tensors: Mapping[str, GgufTensor],
    read: Read,
) -> Iterator[tuple[str, Any]]:  # fmt: skip
    """How positions are rotated, where not as usual."""
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    if width < 1:
        raise FormatError(f"{path}: heads have no elements; download the file again")
    rotated = _read_number(path, "rope.dimension_count", metadata.get(f"{name}.rope.dimension_count") or width)
    if name == "phi3" and rotated != width:
        yield "partial_rotary_factor", rotated / width
    kind, factor = (metadata.get(f"{name}.rope.scaling.{key}") for key in ("type", "factor"))
    long, short = (tensors.get(f"rope_factors_{length}.weight") for length in ("long", "short"))
    if "rope_freqs.weight" in tensors:
        factors = read(path, tensors["rope_freqs.weight"])
        yield "rope_scaling", _find_llama3(path, factors, float(config.get("rope_theta", 10000.0)))
    elif long is not None and short is not None:
        shortened = ([_shorten(value) for value in read(path, tensor)] for tensor in (long, short))
        long_factor, short_factor = shortened
        yield "rope_scaling", {"type": "longrope", "long_factor": long_factor, "short_factor": short_factor}
    elif kind in ("linear", "yarn"):
        scaling = {"rope_type": kind, "factor": _read_number(path, "rope.scaling.factor", factor or 1)}
        key = "rope.scaling.original_context_length"
        before = metadata.get(f"{name}.{key}")
        if kind == "yarn" and before:
            scaling["original_max_position_embeddings"] = _read_number(path, key, before)
        yield "rope_scaling", scaling
    elif kind not in (None, "none", "longrope"):
        raise FormatError(f"{path}: positions are scaled by {str(kind)[:100]!r}, which is not known")


def _find_llama3(path: Path, factors: tuple[float, ...], theta: float) -> dict[str, Any]:
    """The settings that give these factors; they are rounded to float32 in the file."""
    for factor, low, high, before in _LLAMA3:
        expected = list_factors(len(factors), theta, factor, low, high, before)
        if all(math.isclose(one, other, rel_tol=1e-4) for one, other in zip(factors, expected, strict=True)):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": before,
            }
    raise FormatError(
        f"{path}: rope_freqs.weight holds factors of no settings that are known; use the original weights"
    )


def list_factors(count: int, theta: float, factor: float, low: float, high: float, before: int) -> list[float]:
    """By what Llama 3's positions are divided, pair by pair: `rope_freqs.weight`."""
    frequencies = (theta ** (-index / count) for index in range(count))
    return [_scale(frequency, factor, low, high, before) for frequency in frequencies]


def _scale(frequency: float, factor: float, low: float, high: float, before: int) -> float:
    length = 2 * math.pi / frequency
    if length < before / high:
        return 1.0
    if length > before / low or low == high:
        return factor
    smooth = (before / length - low) / (high - low)
    return 1 / ((1 - smooth) / factor + smooth)
