"""Telling quantized checkpoints apart: their integers are codes, and codes must never be merged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["find_quantization"]

#: Last part of a tensor name -> the scheme that stores it.
_TRACES = {
    "qweight": "GPTQ or AWQ",
    "qzeros": "GPTQ or AWQ",
    "weight_packed": "compressed-tensors",
    "weight_scale": "compressed-tensors or fp8",
    "weight_scale_inv": "fp8 in blocks",
    "absmax": "bitsandbytes 4-bit",
    "quant_map": "bitsandbytes 4-bit",
    "SCB": "bitsandbytes 8-bit",
    "gate_up_proj_blocks": "MXFP4",
    "down_proj_blocks": "MXFP4",
}


def find_quantization(names: Iterable[str], config: Mapping[str, Any]) -> str | None:
    """Return the quantization scheme of a checkpoint, or None if its weights are plain numbers."""
    for key in ("quantization_config", "compression_config"):
        settings = config.get(key)
        if isinstance(settings, Mapping):
            return str(settings.get("quant_method", "of unknown kind"))
    for name in names:
        scheme = _TRACES.get(name.rpartition(".")[2])
        if scheme is not None:
            return scheme
    return None
