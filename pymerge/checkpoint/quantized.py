"""Telling quantized checkpoints apart: their integers are codes, and codes must never be merged.

Of some schemes, the weights that codes stand for are known (`kernels/dequantize/spec.py`): fp8 with scales per tensor,
per channel or per block, and MXFP4. `find_scaled` says which tensors these are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pymerge.checkpoint.values import StoredTensor
from pymerge.errors import FormatError

__all__ = ["KEYS", "Scaled", "ScaledWeights", "find_quantization", "find_scaled"]

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
#: Keys of config.json that describe quantization.
KEYS = ("quantization_config", "compression_config")

_FP8 = ("F8_E4M3", "F8_E5M2")
_SCALES = ("F32", "F16", "BF16", "F8_E8M0")
#: Last part of the name of what scales activations, which weights do without.
_ACTIVATIONS = ("input_scale", "output_scale", "activation_scale", "k_scale", "v_scale", "q_scale")
_MXFP4_GROUP = 32


@dataclass(frozen=True, slots=True)
class Scaled:
    """A weight that is stored as codes and scales.

    Attributes:
        name: of the weight.
        scales: one for each block, in the order of blocks; its shape may lack or have more dims of 1 at its end.
        shape: of the weight as the codes are ordered.
        block: rows and columns that share a scale, of fp8; None for MXFP4, whose groups are 32 values of a row.
        turned: whether the weight's last two dims are exchanged where it is stored without codes (MXFP4).
    """

    name: str
    codes: StoredTensor
    scales: StoredTensor
    shape: tuple[int, ...]
    block: tuple[int, int] | None = None
    turned: bool = False


@dataclass(frozen=True, slots=True)
class ScaledWeights:
    """What is quantized in a checkpoint; all other tensors are plain.

    Attributes:
        scheme: for messages.
        weights: by their names.
        needless: tensors that plain weights do without: scales of activations.
    """

    scheme: str
    weights: Mapping[str, Scaled]
    needless: tuple[str, ...] = ()


def find_quantization(names: Iterable[str], config: Mapping[str, Any]) -> str | None:
    """Return the quantization scheme of a checkpoint, or None if its weights are plain numbers."""
    settings = _find_settings(config)
    if settings is not None:
        return str(settings.get("quant_method", "of unknown kind"))
    for name in names:
        scheme = _TRACES.get(name.rpartition(".")[2])
        if scheme is not None:
            return scheme
    return None


def find_scaled(tensors: Mapping[str, StoredTensor], config: Mapping[str, Any]) -> ScaledWeights | None:
    """Match the codes of a quantized checkpoint with their scales.

    Returns:
        None if config.json describes none of the schemes that can be dequantized; what `find_quantization` then
        says is to be refused.

    Raises:
        FormatError: codes and scales do not fit together.
    """
    settings = _find_settings(config) or {}
    method = settings.get("quant_method")
    if method == "mxfp4":
        weights = {scaled.name: scaled for scaled in _match_mxfp4(tensors)}
        return ScaledWeights("MXFP4", weights) if weights else None
    blocks = _find_blocks(settings)
    if blocks is None:
        return None
    weights = {
        name: _match_fp8(stored, tensors, blocks)
        for name, stored in tensors.items()
        if stored.dtype.code in _FP8 and len(stored.shape) >= 2
    }
    needless = tuple(name for name in tensors if name.rpartition(".")[2] in _ACTIVATIONS)
    return ScaledWeights(f"{method}, 8-bit floats", weights, needless) if weights else None


def _find_settings(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((config[key] for key in KEYS if isinstance(config.get(key), Mapping)), None)


def _find_blocks(settings: Mapping[str, Any]) -> tuple[tuple[int, int], ...] | None:
    """Sizes of blocks that fp8 scales may have, besides channels and tensors; None if the weights are no plain fp8."""
    method = settings.get("quant_method")
    if method == "fp8":
        size = settings.get("weight_block_size")
        return () if size is None else _read_sizes([size])
    # A scale per channel; and one per tensor.
    if method == "fbgemm_fp8" or (method == "modelopt" and settings.get("quant_algo") == "FP8"):
        return ()
    if method != "compressed-tensors":
        return None
    groups = settings.get("config_groups")
    if settings.get("format") != "float-quantized" or not isinstance(groups, Mapping) or not groups:
        return None
    sizes = []
    for group in groups.values():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if not isinstance(weights, Mapping) or group.get("format") not in (None, "float-quantized"):
            return None
        kind = (weights.get("num_bits"), weights.get("type"), weights.get("symmetric", True))
        if kind != (8, "float", True) or weights.get("strategy") not in ("tensor", "channel", "block"):
            return None
        if weights["strategy"] == "block":
            sizes.append(weights.get("block_structure"))
    return _read_sizes(sizes)


def _read_sizes(values: list[Any]) -> tuple[tuple[int, int], ...] | None:
    sizes = []
    for value in values:
        if not isinstance(value, list) or len(value) != 2 or not all(type(n) is int and n > 0 for n in value):
            return None
        sizes.append((value[0], value[1]))
    return tuple(sizes)


def _match_fp8(codes: StoredTensor, tensors: Mapping[str, StoredTensor], blocks: Iterable[tuple[int, int]]) -> Scaled:
    found = [tensors[name] for name in (f"{codes.name}_scale_inv", f"{codes.name}_scale") if name in tensors]
    if len(found) != 1:
        number = "two tensors" if found else "no tensor"
        raise FormatError(f'{codes.path}: tensor "{codes.name}" is {codes.dtype} and has {number} of scales')
    (scales,) = found
    *lead, rows, columns = codes.shape
    # Of blocks that give one grid, such as those of a matrix of one block, any will do.
    for block in (*blocks, (1, columns), (rows, columns)):
        grid = (*lead, -(-rows // max(1, block[0])), -(-columns // max(1, block[1])))
        if scales.dtype.code in _SCALES and _fits(scales.shape, grid):
            return Scaled(codes.name, codes, scales, codes.shape, block)
    raise FormatError(
        f'{scales.path}: the scales of "{codes.name}" are {scales.dtype} {list(scales.shape)}, and fit no blocks of '
        f"{list(codes.shape)} that config.json describes"
    )


def _fits(shape: tuple[int, ...], grid: tuple[int, ...]) -> bool:
    """Whether scales have a grid's shape, dims of 1 at the end not counted: those per row or tensor often lack them."""
    return _strip(shape) == _strip(grid)


def _strip(shape: tuple[int, ...]) -> tuple[int, ...]:
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _match_mxfp4(tensors: Mapping[str, StoredTensor]) -> Iterable[Scaled]:
    for name, codes in tensors.items():
        if not name.endswith("_blocks"):
            continue
        stem = name.removesuffix("_blocks")
        scales = tensors.get(f"{stem}_scales")
        *lead, groups, width = codes.shape if len(codes.shape) >= 3 else (0, 0)
        fits = scales is not None and scales.shape == (*lead, groups) and width == _MXFP4_GROUP // 2
        if scales is None or not fits or {codes.dtype.code, scales.dtype.code} != {"U8"}:
            raise FormatError(
                f'{codes.path}: tensor "{name}" and its scales are not MXFP4: bytes [.., groups, 16] and [.., groups]'
            )
        yield Scaled(stem, codes, scales, (*lead, groups * _MXFP4_GROUP), turned=True)
