"""Tied weights, which a pickled file has under several names for one range of bytes, and safetensors files once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymerge.checkpoint.names import EMBEDDINGS, last_part
from pymerge.checkpoint.values import StoredTensor

__all__ = ["are_tied", "drop_tied"]

#: The embedding that an encoder and a decoder share is kept under this name.
_SHARED = "shared"


def drop_tied(tensors: Mapping[str, StoredTensor], config: Mapping[str, Any]) -> Mapping[str, StoredTensor]:
    """Keep of tensors that are one embedding's bytes the embedding alone, unless config.json says that they are untied.

    Where it says nothing they are tied, as that they were saved as one shows.
    """
    if not are_tied(config):
        return tensors
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, stored in tensors.items():
        if len(stored.shape) == 2 and stored.nbytes:
            groups.setdefault((stored.path, stored.offset, stored.shape, stored.dtype), []).append(name)
    dropped: set[str] = set()
    for names in groups.values():
        embeddings = [name for name in names if last_part(name) in EMBEDDINGS]
        kept = next((name for name in embeddings if last_part(name) == _SHARED), next(iter(embeddings), None))
        if kept is not None:
            dropped.update(name for name in names if name != kept)
    return {name: stored for name, stored in tensors.items() if name not in dropped} if dropped else tensors


def are_tied(config: Mapping[str, Any]) -> bool:
    """Whether config.json leaves it open that embedding and output head are one."""
    sections = (config, *(value for value in config.values() if isinstance(value, Mapping)))
    said = [section["tie_word_embeddings"] for section in sections if "tie_word_embeddings" in section]
    return said[:1] != [False]
