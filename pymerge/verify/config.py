"""config.json against the tensors that it describes: what a loader would refuse, or read wrongly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pymerge.checkpoint import Architecture, Checkpoint, StoredTensor, adapters, infer_architecture
from pymerge.checkpoint.json_files import read_json
from pymerge.checkpoint.names import LAYER_COUNTS
from pymerge.config.values import ModelRef
from pymerge.errors import FormatError
from pymerge.output.folder import CONFIG
from pymerge.verify.manifest import Manifest
from pymerge.verify.values import Check, Finding

__all__ = ["check_adapter_config", "check_config"]

#: Keys of the width of a model, which its embedding has.
_WIDTHS = ("hidden_size", "n_embd", "d_model")
#: Keys of models whose embeddings have a width of their own.
_OWN_WIDTHS = ("embedding_size", "word_embed_proj_dim")
_DTYPES = ("torch_dtype", "dtype")


def check_config(folder: Path, tensors: Mapping[str, StoredTensor], manifest: Manifest | None) -> Check:
    """Hold config.json to names, shapes and types, and to what was written."""
    config = _read(folder, CONFIG)
    if isinstance(config, Check):
        return config
    architecture = infer_architecture(Checkpoint(ModelRef(str(folder)), folder, tensors, config, ()))
    section = _find_section(config, architecture)
    said: dict[str, str] = {}
    wrong = [
        *_check_layers(config, architecture, said),
        *_check_embedding(config, section, architecture, tensors, said),
        *_check_dtype(config, tensors, said),
        *(manifest.find_change(folder, CONFIG) if manifest else ()),
    ]
    summary = ", ".join(f"{key} {value}" for key, value in said.items())
    return Check("config", summary or "says nothing that tensors show", tuple(wrong))


def check_adapter_config(folder: Path, manifest: Manifest | None) -> Check:
    """Hold adapter_config.json to what was written."""
    config = _read(folder, adapters.CONFIG)
    if isinstance(config, Check):
        return config
    wrong = manifest.find_change(folder, adapters.CONFIG) if manifest else ()
    return Check("config", f"adapter of type {config.get('peft_type')}, rank {config.get('r')}", wrong)


def _read(folder: Path, name: str) -> Mapping[str, Any] | Check:
    """What a file says, or what is wrong with it."""
    if not (folder / name).exists():
        return Check("config", "missing", (Finding("is missing: the merge did not finish, or it was removed", name),))
    try:
        return read_json(folder / name)
    except FormatError as error:
        return Check("config", "damaged", (Finding(str(error)),))


def _find_section(config: Mapping[str, Any], architecture: Architecture) -> Mapping[str, Any]:
    """The part of config.json that speaks of the main stack of layers."""
    section: Any = config
    keys = architecture.stacks[0].keys if architecture.stacks else ()
    for key in keys[0][:-1] if keys else ():
        section = section[key]
    found: Mapping[str, Any] = section
    return found


def _check_layers(config: Mapping[str, Any], architecture: Architecture, said: dict[str, str]) -> Iterator[Finding]:
    sections = [config, *(value for value in config.values() if isinstance(value, dict))]
    counts = [(key, part[key]) for part in sections for key in LAYER_COUNTS if isinstance(part.get(key), int)]
    if not architecture.stacks:
        # Not every model has numbered layers, but one that says how many it has does.
        if counts and architecture.obstacle:
            yield Finding(architecture.obstacle, CONFIG)
        return
    stack = architecture.stacks[0]
    said["layers"] = str(stack.count)
    if not stack.keys and counts:
        listed = ", ".join(f"{key} = {value}" for key, value in counts)
        yield Finding(f"says {listed}, the tensors have {stack.count} layers ({stack.prefix})", CONFIG)


def _check_embedding(
    config: Mapping[str, Any],
    section: Mapping[str, Any],
    architecture: Architecture,
    tensors: Mapping[str, StoredTensor],
    said: dict[str, str],
) -> Iterator[Finding]:
    if architecture.embedding is None:
        return
    rows, width = tensors[architecture.embedding].shape
    vocabulary = section.get("vocab_size", config.get("vocab_size"))
    if isinstance(vocabulary, int):
        said["vocabulary"] = str(rows)
        if vocabulary != rows:
            yield Finding(f"says vocab_size = {vocabulary}, {architecture.embedding} has {rows} rows", CONFIG)
    key = next((key for key in _WIDTHS if isinstance(section.get(key), int)), None)
    if key is not None and not any(own in section for own in _OWN_WIDTHS):
        said["width"] = str(width)
        if section[key] != width:
            yield Finding(f"says {key} = {section[key]}, rows of {architecture.embedding} have {width}", CONFIG)


def _check_dtype(
    config: Mapping[str, Any], tensors: Mapping[str, StoredTensor], said: dict[str, str]
) -> Iterator[Finding]:
    """The type of most bytes, as the merge wrote it."""
    sizes: Counter[str] = Counter()
    for tensor in tensors.values():
        if tensor.dtype.mergeable:
            sizes[tensor.dtype.name] += tensor.nbytes
    for key in _DTYPES:
        if isinstance(config.get(key), str) and sizes:
            most = max(sizes.values())
            said["type"] = config[key]
            if sizes[config[key].removeprefix("torch.")] != most:
                found = ", ".join(f"{name} {size:,} bytes" for name, size in sizes.most_common())
                yield Finding(f"says {key} = {config[key]}, the tensors are {found}", CONFIG)
