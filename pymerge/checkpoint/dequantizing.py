"""Quantized checkpoints whose weights are known: codes and scales become weights, decoded while they are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pymerge.checkpoint.quantized import KEYS, Scaled, find_quantization, find_scaled
from pymerge.checkpoint.sources import Dequantized
from pymerge.checkpoint.values import Source, StoredTensor
from pymerge.dtypes import BY_NAME, DType
from pymerge.errors import DTypeError, FormatError

__all__ = ["dequantize"]

#: Scales of one weight at most: they are held while it is read. Blocks of any size in use have far fewer.
_MOST_SCALES = 1 << 24


def dequantize(
    folder: Path, tensors: Mapping[str, StoredTensor], config: Mapping[str, Any]
) -> tuple[Mapping[str, Source], Mapping[str, Any], str | None]:
    """Return a checkpoint's tensors as weights, a config.json that says so, and what was quantized, for messages.

    Raises:
        DTypeError: it is quantized in another way.
        FormatError: codes and scales do not fit together.
    """
    scheme = find_quantization(tensors, config)
    if scheme is None:
        return tensors, config, None
    found = find_scaled(tensors, config)
    if found is None:
        raise DTypeError(
            f"{folder}: the checkpoint is quantized ({scheme}), and quantized codes cannot be merged; "
            "use the original weights, or dequantize them first"
        )
    origin = _find_origin(config)
    weights = {scaled.codes.name: scaled for scaled in found.weights.values()}
    dropped = {scaled.scales.name for scaled in weights.values()} | set(found.needless)
    kept: dict[str, Source] = {}
    for name, stored in tensors.items():
        scaled = weights.get(name)
        if scaled is not None:
            kept[scaled.name] = _make(scaled, origin)
        elif name not in dropped:
            kept[name] = stored
    plain = {key: value for key, value in config.items() if key not in KEYS}
    return kept, plain, found.scheme


def _make(scaled: Scaled, origin: DType) -> Dequantized:
    if not scaled.codes.count or scaled.scales.count > _MOST_SCALES:
        what = "is empty" if not scaled.codes.count else f"has {scaled.scales.count} scales, over {_MOST_SCALES}"
        raise FormatError(f'{scaled.codes.path}: quantized tensor "{scaled.name}" {what}; use the original weights')
    shape = (*scaled.shape[:-2], scaled.shape[-1], scaled.shape[-2]) if scaled.turned else scaled.shape
    scheme = "mxfp4" if scaled.block is None else "fp8"
    return Dequantized(scaled.name, shape, scheme, scaled.codes, origin, scaled.scales, scaled.block)


def _find_origin(config: Mapping[str, Any]) -> DType:
    """The type of the weights that are not quantized, as config.json gives it."""
    sections = (config, *(value for value in config.values() if isinstance(value, Mapping)))
    for section in sections:
        for key in ("torch_dtype", "dtype"):
            dtype = BY_NAME.get(section[key]) if isinstance(section.get(key), str) else None
            if dtype is not None and dtype.mergeable:
                return dtype
    return BY_NAME["bfloat16"]
