"""LoRA adapters as PEFT saves them, applied to a checkpoint's headers: the products are added while weights are read.

What an adapter holds is told by its tensors' names; adapter_config.json gives the scales.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pymerge.checkpoint.json_files import read_json
from pymerge.checkpoint.names import EMBEDDINGS, HEADS, VOCABULARY_BIASES, WRAPPERS, last_part
from pymerge.checkpoint.patterns import Patterns
from pymerge.checkpoint.remote import Place, is_there
from pymerge.checkpoint.sources import LowRank, Update
from pymerge.checkpoint.values import Checkpoint, Source, StoredTensor
from pymerge.checkpoint.weights import describe_file, read_weights
from pymerge.errors import DTypeError, FormatError, ShapeError

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
#: Modules that may be given more or fewer rows: of what has one for each token.
_RESIZABLE = (*EMBEDDINGS, *HEADS, *VOCABULARY_BIASES)


@dataclass(slots=True)
class _Pair:
    """The two factors of one module; `embedding`: of a token embedding."""

    embedding: bool
    a: StoredTensor | None = None
    b: StoredTensor | None = None


@dataclass(frozen=True, slots=True)
class _Config:
    """What adapter_config.json says; `ranks` and `alphas` are of single modules."""

    path: Path
    values: Mapping[str, Any]
    ranks: Patterns
    alphas: Patterns


def adapt(checkpoint: Checkpoint, place: Place) -> Checkpoint:
    """Return a checkpoint with an adapter's updates.

    Args:
        checkpoint: the model that the adapter was trained on.
        place: where the adapter is.

    Raises:
        FormatError: it is no LoRA adapter, holds what cannot be applied, or names modules that the model lacks.
        DTypeError: it holds what is no plain number.
        ShapeError: its factors, or its whole tensors, do not fit the model.
    """
    folder, remote = place.folder.resolve(), place.remote
    weights = next((folder / name for name in WEIGHTS if is_there(folder / name, remote)), None)
    if weights is None or not os.path.isfile(folder / CONFIG):
        raise FormatError(f"{folder}: an adapter has {CONFIG} and {WEIGHTS[0]}, and one of them is not here")
    config = _read_config(folder)
    pairs, saved = _sort(weights, read_weights(weights, remote))
    if not pairs and not saved:
        raise FormatError(f"{weights}: holds no tensor of an adapter; save it again, or remove it from the recipe")
    tensors: dict[str, Source] = dict(checkpoint.tensors)
    unknown = []
    for name, tensor in saved.items():
        found = _find(name, tensors)
        if found is None and last_part(name) not in HEADS:
            unknown.append(name)
        else:
            _check_saved(weights, name, tensor, tensors[found] if found else None)
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
            f"it was trained on (its {CONFIG} says {config.values.get('base_model_name_or_path')!r})"
        )
    return replace(
        checkpoint,
        tensors=tensors,
        files=(*checkpoint.files, describe_file(weights, remote)),
        config=_settle_config(checkpoint, tensors),
        remote={**checkpoint.remote, **remote},
    )


def _read_config(folder: Path) -> _Config:
    path = folder / CONFIG
    config = read_json(path)
    _refuse_kinds(folder, config)
    ranks, alphas = (Patterns(path, key, config.get(key)) for key in ("rank_pattern", "alpha_pattern"))
    return _Config(path, config, ranks, alphas)


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


def _sort(path: Path, stored: Mapping[str, StoredTensor]) -> tuple[dict[str, _Pair], dict[str, StoredTensor]]:
    """Factors by module, and tensors that replace the model's, by name."""
    pairs: dict[str, _Pair] = {}
    saved: dict[str, StoredTensor] = {}
    for full, tensor in stored.items():
        other = next((what for part, what in _OTHER_KINDS.items() if part in full), None)
        if other is not None:
            raise FormatError(f'{path}: tensor "{full}": {other} cannot be applied; {_HINT}')
        name = full.removeprefix(PREFIX)
        factor, kept = _FACTOR.fullmatch(name), _SAVED.fullmatch(name)
        if factor:
            pair = pairs.setdefault(factor["module"], _Pair(bool(factor["embedding"])))
            if (pair.a if factor["side"] == "A" else pair.b) is not None:
                raise FormatError(f'{path}: tensor "{full}" is of a second adapter; save each in a folder of its own')
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


def _check_saved(path: Path, name: str, tensor: StoredTensor, base: Source | None) -> None:
    """Refuse a whole tensor that cannot stand where the model's does."""
    if base is None or base.dtype != tensor.dtype:
        _check_number(path, tensor)
    if base is None or tensor.shape == base.shape:
        return
    same = len(tensor.shape) == len(base.shape) and tensor.shape[1:] == base.shape[1:]
    if not same or last_part(name) not in _RESIZABLE:
        raise ShapeError(
            f'{path}: tensor "{tensor.name}" has the shape {list(tensor.shape)}, and "{name}" of the model '
            f"{list(base.shape)}; is this the model that the adapter was trained on?"
        )


def _check_number(path: Path, tensor: StoredTensor) -> None:
    if not tensor.dtype.mergeable:
        raise DTypeError(
            f'{path}: tensor "{tensor.name}" is {tensor.dtype}, which is not calculated with; convert the adapter to '
            "bfloat16, float16 or float32 first"
        )


def _update(path: Path, name: str, base: Source, module: str, pair: _Pair, config: _Config) -> LowRank:
    a, b = pair.a, pair.b
    if a is None or b is None:
        raise FormatError(f"{path}: {module} has one of its factors A and B, not both; save the adapter again")
    for factor in (a, b):
        _check_number(path, factor)
    turned = pair.embedding or bool(config.values.get("fan_in_fan_out"))
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
    _check_rank(path, module, rank, config)
    # Stored as W is: its rows come from A where W is the product's transpose.
    first, second = (b, a) if turned else (a, b)
    return LowRank(name, base.shape, base, (Update(first, second, rank, _scale(config, module, rank), turned),))


def _check_rank(path: Path, module: str, rank: int, config: _Config) -> None:
    """Refuse factors whose rank is not the configuration's: which of them alpha is divided by cannot be told."""
    if rank == 0:
        raise ShapeError(f"{path}: {module} has factors of rank 0, which add nothing; save the adapter without them")
    said = config.ranks.find(module, config.values.get("r", rank))
    if said != rank:
        raise FormatError(
            f"{config.path}: r or rank_pattern gives {module} the rank {repr(said)[:100]}, its factors in {path.name} "
            f"have the rank {rank}; PEFT does not load that: save the adapter again, or correct the number"
        )


def _scale(config: _Config, module: str, rank: int) -> float:
    """alpha / rank, or alpha / sqrt(rank); a pattern may give a module its own alpha."""
    alpha = config.alphas.find(module, config.values.get("lora_alpha", rank))
    if not isinstance(alpha, (int, float)) or not abs(alpha) <= sys.float_info.max:
        raise FormatError(
            f"{config.path}: lora_alpha or alpha_pattern gives {module} the alpha {repr(alpha)[:100]}, which is no "
            "number or too large; correct it"
        )
    return float(alpha) / (math.sqrt(rank) if config.values.get("use_rslora") else rank)


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
