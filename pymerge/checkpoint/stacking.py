"""config.json of a model whose layers were rearranged: what counts or lists layers follows them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from pymerge.checkpoint.architecture import Stack

__all__ = ["restack_config"]

#: Lists as long as there are layers that are something else.
_NOT_PER_LAYER = {"architectures", "eos_token_id", "bos_token_id", "pad_token_id", "suppress_tokens", "bad_words_ids"}

#: Lists of the numbers of those layers that are special.
_LAYER_NUMBERS = (
    "mlp_only_layers", "full_attn_idxs", "attn_layer_indices", "cross_attention_layers", "moe_layers",
    "global_attn_layers",
)  # fmt: skip

#: Strings with one letter per layer.
_LETTERS = ("hybrid_override_pattern",)

#: The first n layers are of one kind, the others of another. True: a wrong kind cannot even load.
_THRESHOLDS = {"first_k_dense_replace": True, "num_dense_layers": True, "max_window_layers": False}

#: Every n-th layer is of another kind, counted from the start.
_PERIODS = (
    "sliding_window_pattern", "full_attention_interval", "global_attn_every_n_layers", "decoder_sparse_step",
    "moe_layer_freq", "interleave_moe_layer_step", "no_rope_layer_interval", "attn_layer_period",
    "expert_layer_period", "cross_attn_every_n_layers",
)  # fmt: skip
#: The same for families that fix the period in code (sliding and full attention in turn).
_PERIOD_OF_FAMILY = {"gemma2": 2, "cohere2": 4}


def restack_config(
    config: Mapping[str, Any], stack: Stack, origins: Sequence[tuple[Mapping[str, Any], int]]
) -> tuple[dict[str, Any], list[str]]:
    """Return config.json for layers put together anew.

    Args:
        config: the donor's config.json.
        stack: the donor's stack of layers.
        origins: per output layer, config.json of the model it comes from, and its number there.

    Returns:
        The new config, and what it cannot express, one sentence each.
    """
    result = copy.deepcopy(dict(config))
    remarks: list[str] = []
    if [layer for _, layer in origins] == list(range(stack.count)):
        return result, remarks
    for holder in dict.fromkeys(path[:-1] for path in stack.keys):
        section = _descend(result, holder)
        sources = [(_descend(source, holder), layer) for source, layer in origins]
        _move_lists(section, stack.count, sources)
        _move_numbers(section, sources)
        _check_periods(section, sources, remarks)
        _move_thresholds(section, sources, remarks)
    for path in stack.keys:
        _descend(result, path[:-1])[path[-1]] = len(origins)
    return result, remarks


def _descend(config: Any, path: tuple[str, ...]) -> Any:
    """The section at `path`; an empty one where another model's config.json has something else there."""
    for key in path:
        config = config.get(key) if isinstance(config, Mapping) else None
    return config if isinstance(config, Mapping) else {}


_Sources = Sequence[tuple[Mapping[str, Any], int]]


def _move_lists(section: dict[str, Any], count: int, sources: _Sources) -> None:
    """Rearrange everything that has one entry per layer."""
    for key, value in section.items():
        listed = isinstance(value, list) and (count > 1 or key == "layer_types") and key not in _NOT_PER_LAYER
        lettered = isinstance(value, str) and key in _LETTERS
        if key in _LAYER_NUMBERS or not (listed or lettered) or len(value) != count:
            continue
        entries = []
        for source, layer in sources:
            own = source.get(key)
            # A model that lists its layers speaks for them; else the donor's list does.
            fits = isinstance(own, type(value)) and layer < len(own)
            entries.append(own[layer] if fits and own is not None else value[min(layer, count - 1)])
        section[key] = "".join(entries) if isinstance(value, str) else entries
    if isinstance(section.get("attention_types"), list) and isinstance(section.get("attention_layers"), list):
        # GPT-Neo writes its list twice, once run-length coded; one run of one copy is valid code.
        section["attention_types"] = [[section["attention_layers"], 1]]


def _move_numbers(section: dict[str, Any], sources: _Sources) -> None:
    for key in _LAYER_NUMBERS:
        if isinstance(section.get(key), list):
            numbers = [_listed(source.get(key)) for source, _ in sources]
            section[key] = [place for place, (_, layer) in enumerate(sources) if layer in numbers[place]]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _move_thresholds(section: dict[str, Any], sources: _Sources, remarks: list[str]) -> None:
    for key, vital in _THRESHOLDS.items():
        if not isinstance(section.get(key), int):
            continue
        said = (source.get(key) for source, _ in sources)
        limits = [limit if isinstance(limit, int) else section[key] for limit in said]
        first = [layer < limit for (_, layer), limit in zip(sources, limits, strict=True)]
        count = sum(first)
        if all(first[:count]):
            # A limit past the last layer means "all of them", and still must.
            section[key] = count if count < len(sources) else max(count, section[key])
        elif vital or (section.get("use_sliding_window") and "layer_types" not in section):
            place = first.index(False)
            remarks.append(
                f"{key} in config.json covers the first layers only, but output layer {place} is of the later kind "
                f"and layer {first.index(True, place)} of the first kind"
            )


def _check_periods(section: Mapping[str, Any], sources: _Sources, remarks: list[str]) -> None:
    if "layer_types" in section:
        return
    periods = {key: section[key] for key in _PERIODS if isinstance(section.get(key), int)}
    family = str(section.get("model_type", ""))
    if not periods and family in _PERIOD_OF_FAMILY:
        periods = {f"the {family} architecture": _PERIOD_OF_FAMILY[family]}
    for key, period in periods.items():
        moved = next((p for p, (_, layer) in enumerate(sources) if period > 1 and (p - layer) % period), None)
        if moved is not None:
            remarks.append(
                f"{key} makes one layer in {period} of another kind, but output layer {moved} comes from layer "
                f"{sources[moved][1]}: begin slices at multiples of {period} to keep every layer's kind"
            )
