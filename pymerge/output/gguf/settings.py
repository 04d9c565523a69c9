"""config.json as metadata of a GGUF file, and the vectors that positions are scaled with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pymerge.checkpoint.gguf_config import list_factors
from pymerge.checkpoint.gguf_families import Family
from pymerge.errors import RecipeError
from pymerge.output.gguf.pairs import Value

__all__ = ["describe_settings"]

#: How keys end that hold floats; the others hold integers.
_FLOATS = ("epsilon", "freq_base", "softcapping")
_LIKE = "name a GGUF file of such a model with --gguf-like, whose settings are taken over"


def describe_settings(
    config: Mapping[str, Any], name: str, family: Family
) -> tuple[dict[str, Value | None], dict[str, Sequence[float]]]:
    """(metadata, constant tensors) that say what config.json says.

    Args:
        config: of the output.
        name: of the architecture in the file.

    Raises:
        RecipeError: it lacks something, or positions are scaled in a way that such files do not know.
    """
    rope = config.get("rope_parameters") or {}
    flat = {**config, **({"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {})}
    pairs: dict[str, Value | None] = {}
    for key, source in family.settings.items():
        value = flat.get(source)
        if value is not None:
            pairs[f"{name}.{key}"] = _check_number(value, source, key.endswith(_FLOATS))
    heads, hidden = config.get("num_attention_heads"), config.get("hidden_size")
    if type(heads) is not int or type(hidden) is not int or heads < 1:
        raise RecipeError("config.json of the base lacks num_attention_heads or hidden_size; GGUF files need them")
    width = config.get("head_dim") or hidden // heads
    if config.get("head_dim"):
        pairs |= {f"{name}.attention.key_length": width, f"{name}.attention.value_length": width}
    pairs.setdefault(f"{name}.attention.head_count_kv", heads)
    if name in ("llama", "phi3"):
        partial = config.get("partial_rotary_factor") or rope.get("partial_rotary_factor") or 1.0
        pairs[f"{name}.rope.dimension_count"] = int(width * partial)
    if name == "llama":
        pairs[f"{name}.vocab_size"] = config.get("vocab_size")
    try:
        scaled, constants = _describe_scaling(flat, name, width)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise RecipeError(
            f"config.json of the base does not say how positions are scaled ({type(error).__name__}: {error}); {_LIKE}"
        ) from None
    return {**pairs, **scaled}, constants


def _check_number(value: Any, key: str, real: bool) -> Value:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1 << 32:
        what = f"config.json of the base: {key} is {str(value)[:100]}"
        raise RecipeError(f"{what}, and a number from 0 to {(1 << 32) - 1} is expected; correct it there")
    return float(value) if real else int(value)


def _describe_scaling(
    config: Mapping[str, Any], name: str, width: int
) -> tuple[dict[str, Value | None], dict[str, Sequence[float]]]:
    """How positions are scaled, under the names of either generation of config.json."""
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    lead = f"{name}.rope.scaling"
    if kind == "default":
        return {}, {}
    if kind in ("linear", "yarn"):
        before = scaling.get("original_max_position_embeddings")
        return {
            f"{lead}.type": kind,
            f"{lead}.factor": float(scaling["factor"]),
            f"{lead}.original_context_length": before if kind == "yarn" else None,
        }, {}
    if kind == "llama3":
        keys = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        factor, low, high, before = (scaling[key] for key in keys)
        theta = float(config.get("rope_theta", 10000.0))
        return {}, {"rope_freqs.weight": list_factors(width // 2, theta, factor, low, high, before)}
    if kind in ("longrope", "su") and name == "phi3":
        before = config.get("original_max_position_embeddings") or scaling["original_max_position_embeddings"]
        ratio = config["max_position_embeddings"] / before
        # Phi-3's paper: attention is scaled with how much longer positions are than they were.
        attention = math.sqrt(1 + math.log(ratio) / math.log(before)) if ratio > 1 else 1.0
        return {f"{lead}.attn_factor": attention, f"{lead}.original_context_length": before}, {
            "rope_factors_long.weight": scaling["long_factor"],
            "rope_factors_short.weight": scaling["short_factor"],
        }
    raise RecipeError(
        f"positions are scaled by {str(kind)[:100]!r}, of which GGUF files of {name} know nothing; {_LIKE}"
    )
