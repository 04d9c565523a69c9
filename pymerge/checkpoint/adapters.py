"""LoRA adapters as PEFT saves them, applied to a checkpoint's headers: the products are added while weights are read.

What an adapter holds is told by its tensors' names; adapter_config.json gives the scales.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pymerge.checkpoint.json_files import read_json
from pymerge.checkpoint.names import EMBEDDINGS, HEADS, WRAPPERS, last_part
from pymerge.checkpoint.remote import Place, is_there
from pymerge.checkpoint.sources import LowRank, Update
from pymerge.checkpoint.values import Checkpoint, Source, StoredTensor
from pymerge.checkpoint.weights import describe_file, read_weights
from pymerge.errors import FormatError, ShapeError

__all__ = ["CONFIG", "PREFIX", "WEIGHTS", "adapt", "find_module"]

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")

#: What PEFT puts before a module's name.
PREFIX = "base_model.model."
#: `<module>.<kind>[.<adapter's name>][.weight]`; without the adapter's name as saved, with it in a training state.
_FACTOR = re.compile(
    r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(\.(?!weight$|bias$)\w+)?(\.weight)?"
)
#: Whole tensors: trained ones, and embeddings that are updated, which may have been given more rows before.
_SAVED = re.compile(r"(?P<module>.+?)(\.modules_to_save\.\w+|\.base_layer)?\.(?P<end>weight|bias)")
#: Part of a tensor's name -> what it means that cannot be applied.
_OTHER_KINDS = {
    "lora_magnitude_vector": "DoRA (weight decomposition)",
    "lora_bias": "biases of LoRA's B",
    ".lora_B.bias": "biases of LoRA's B",
    "trainable_tokens": "trained token embeddings",
    "prompt_embeddings": "prompt tuning",
    "ia3_": "IA3",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "vera_": "VeRA",
    "oft_": "OFT",
}
_HINT = "merge it into its model first (peft: merge_and_unload, save_pretrained) and name the result"


@dataclass(slots=True)
class _Pair:
    """The two factors of one module; `embedding`: of a token embedding."""

    embedding: bool
    a: StoredTensor | None = None
    b: StoredTensor | None = None


def adapt(checkpoint: Checkpoint, place: Place) -> Checkpoint:
    """Return a checkpoint with an adapter's updates.

    Args:
        checkpoint: the model that the adapter was trained on.
        place: where the adapter is.

    Raises:
        FormatError: it is no LoRA adapter, holds what cannot be applied, or names modules that the model lacks.
        ShapeError: its factors do not fit the model.
    """
    folder, remote = place.folder.resolve(), place.remote
    weights = next((folder / name for name in WEIGHTS if is_there(folder / name, remote)), None)
    if weights is None or not os.path.isfile(folder / CONFIG):
        raise FormatError(f"{folder}: an adapter has {CONFIG} and {WEIGHTS[0]}, and one of them is not here")
    config = read_json(folder / CONFIG)
    _refuse_kinds(folder, config)
    pairs, saved = _sort(weights, read_weights(weights, remote))
    tensors: dict[str, Source] = dict(checkpoint.tensors)
    unknown = []
    for name, tensor in saved.items():
        found = _find(name, tensors)
        if found is None and last_part(name) not in HEADS:
            unknown.append(name)
        else:
            tensors[found or name] = tensor
    for module, pair in pairs.items():
        found = _find(f"{module}.weight", tensors)
        if found is None:
            unknown.append(module)
        else:
            tensors[found] = _update(weights, found, tensors[found], module, pair, config)
    if unknown:
        listed = ", ".join(unknown[:3]) + (", ..." if unknown[3:] else "")
        raise FormatError(
            f"{folder}: the adapter changes {listed}, which {checkpoint.folder} does not have; name the model that "
            f"it was trained on (its {CONFIG} says {config.get('base_model_name_or_path')!r})"
        )
    return replace(
        checkpoint,
        tensors=tensors,
        files=(*checkpoint.files, describe_file(weights, remote)),
        config=_settle_config(checkpoint, tensors),
        remote={**checkpoint.remote, **remote},
    )


def _refuse_kinds(folder: Path, config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise FormatError(f"{folder / CONFIG}: the adapter's type is {kind!r}, only LORA can be applied; {_HINT}")
    for key, what in (
        ("use_dora", "DoRA (weight decomposition)"),
        ("lora_bias", "biases of LoRA's B"),
        ("layer_replication", "replicated layers"),
        ("target_parameters", "updates of parameters that are no modules' weights"),
    ):
        if config.get(key):
            raise FormatError(f"{folder / CONFIG}: {key}: {what} cannot be applied; {_HINT}")


def _sort(path: Path, stored: Mapping[str, StoredTensor]) -> tuple[dict[str, _Pair], dict[str, Source]]:
    """Factors by module, and tensors that replace the model's, by name."""
    pairs: dict[str, _Pair] = {}
    saved: dict[str, Source] = {}
    for full, tensor in stored.items():
        other = next((what for part, what in _OTHER_KINDS.items() if part in full), None)
        if other is not None:
            raise FormatError(f'{path}: tensor "{full}": {other} cannot be applied; {_HINT}')
        name = full.removeprefix(PREFIX)
        factor, kept = _FACTOR.fullmatch(name), _SAVED.fullmatch(name)
        if factor:
            pair = pairs.setdefault(factor["module"], _Pair(bool(factor["embedding"])))
            if factor["side"] == "A":
                pair.a = tensor
            else:
                pair.b = tensor
        elif ".original_module." in name:
            continue
        elif kept:
            saved[f"{kept['module']}.{kept['end']}"] = tensor
        else:
            raise FormatError(f'{path}: tensor "{full}" is nothing that LoRA adapters hold; {_HINT}')
    return pairs, saved


def find_module(name: str) -> str | None:
    """The module that a tensor of an adapter is of, as PEFT names it; None if it is no factor, weight or bias."""
    bare = name.removeprefix(PREFIX)
    found = _FACTOR.fullmatch(bare) or _SAVED.fullmatch(bare)
    return found["module"] if found else None


def _find(name: str, tensors: Mapping[str, Source]) -> str | None:
    """The checkpoint's name for a tensor; a model may have been saved without the module that wraps it."""
    if name in tensors:
        return name
    for wrapper in WRAPPERS:
        other = name.removeprefix(wrapper) if name.startswith(wrapper) else wrapper + name
        if other in tensors:
            return other
    return None


def _update(path: Path, name: str, base: Source, module: str, pair: _Pair, config: Mapping[str, Any]) -> LowRank:
    a, b = pair.a, pair.b
    if a is None or b is None:
        raise FormatError(f"{path}: {module} has one of its factors A and B, not both; save the adapter again")
    turned = pair.embedding or bool(config.get("fan_in_fan_out"))
    if len(a.shape) != 2 or len(b.shape) != 2 or len(base.shape) != 2 or not base.dtype.mergeable:
        raise ShapeError(f"{path}: {module} is no matrix ({list(base.shape)}), and only those are updated; {_HINT}")
    rank = a.shape[0]
    product = (b.shape[0], a.shape[1])
    wanted = (base.shape[1], base.shape[0]) if turned else base.shape
    if b.shape[1] != rank or product != wanted:
        raise ShapeError(
            f'{path}: {module}: B {list(b.shape)} times A {list(a.shape)} is not of the shape of "{name}", '
            f"{list(base.shape)}; is this the model that the adapter was trained on?"
        )
    # Stored as W is: its rows come from A where W is the product's transpose.
    first, second = (b, a) if turned else (a, b)
    return LowRank(name, base.shape, base, (Update(first, second, rank, _scale(config, module, rank), turned),))


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """alpha / rank, or alpha / sqrt(rank); a pattern may give a module its own alpha."""
    alpha = config.get("lora_alpha", rank)
    patterns = config.get("alpha_pattern")
    for pattern, value in patterns.items() if isinstance(patterns, Mapping) else ():
        if module == pattern or module.endswith("." + pattern) or _matches(pattern, module):
            alpha = value
            break
    if not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
        raise FormatError(f"{CONFIG}: lora_alpha = {alpha!r} of {module} is no number")
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _matches(pattern: str, module: str) -> bool:
    """As PEFT reads its patterns: a regular expression for the end of a module's name."""
    if len(pattern) > 500:
        return False
    try:
        return re.fullmatch(rf"(.*\.)?({pattern})", module) is not None
    except re.error:
        return False


def _settle_config(checkpoint: Checkpoint, tensors: Mapping[str, Source]) -> Mapping[str, Any]:
    """config.json after an adapter brought rows or an output head of its own."""
    changed = dict(_changes(checkpoint, tensors))
    return {**checkpoint.config, **changed} if changed else checkpoint.config


def _changes(checkpoint: Checkpoint, tensors: Mapping[str, Source]) -> Iterator[tuple[str, Any]]:
    for name, tensor in tensors.items():
        before = checkpoint.tensors.get(name)
        if before is None and last_part(name) in HEADS:
            yield "tie_word_embeddings", False
        elif before is not None and before.shape != tensor.shape and last_part(name) in EMBEDDINGS:
            yield "vocab_size", tensor.shape[0]
