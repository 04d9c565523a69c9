"""A GGUF file as a checkpoint: names, order of rows and config.json as the folders of its family have them."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from pymerge.checkpoint.gguf_config import make_config
from pymerge.checkpoint.gguf_families import FAMILIES, Family, find_name
from pymerge.checkpoint.gguf_header import GgufHeader, GgufTensor, read_gguf_header
from pymerge.checkpoint.kinds import is_gguf
from pymerge.checkpoint.sources import Dequantized, RowChoice, Rows
from pymerge.checkpoint.values import Checkpoint, Source, StoredTensor
from pymerge.checkpoint.weights import describe_file
from pymerge.config.values import ModelRef
from pymerge.dtypes import BY_CODE, BY_NAME
from pymerge.errors import DTypeError, FormatError

__all__ = ["name_like", "open_gguf"]

#: model_type -> others that files do not tell from it.
_ALIKE = {"llama": ("mistral",)}
#: Rows of queries at most; models have some ten thousand.
_MOST_ROWS = 1 << 20
_BYTES = BY_CODE["U8"]
#: What weights are taken for that are not stored as floats.
_ORIGIN = BY_NAME["bfloat16"]
#: What is worked out from settings, and read for config.json.
_ROPE = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


def open_gguf(ref: ModelRef) -> Checkpoint:
    """Look into a GGUF file: its header, and the few numbers that positions are scaled with.

    Raises:
        FormatError: it is damaged, one of several, of an architecture that is not known, or holds a tensor or a
            type that is not.
        DTypeError: numbers for positions are no float32.
    """
    # Links are not followed: what they lead to, in a cache of downloads, is not called .gguf.
    path = Path(os.path.expanduser(ref.path)).absolute()
    header = read_gguf_header(path)
    name = header.metadata.get("general.architecture")
    family = FAMILIES.get(name) if isinstance(name, str) else None
    if family is None or not isinstance(name, str):
        known = ", ".join(FAMILIES)
        raise FormatError(f"{path}: the architecture is {str(name)[:100]!r}, and known are {known}; {_OTHERWISE}")
    if (header.metadata.get("split.count") or 0) not in (0, 1):
        raise FormatError(f"{path}: is one of several files; join them with llama-gguf-split --merge")
    tensors: dict[str, Source] = {}
    for tensor in header.tensors:
        if tensor.name in _ROPE:
            continue
        found = find_name(family, tensor.name)
        if found is None:
            raise FormatError(f'{path}: tensor "{tensor.name}" is none that {name} is known to have; {_OTHERWISE}')
        tensors[found[0]] = _make_source(path, header, name, family, tensor, found[1])
    config = make_config(path, header, name, family, {tensor.name: tensor for tensor in header.tensors}, _read_floats)
    kinds = ", ".join(dict.fromkeys(tensor.kind for tensor in header.tensors))
    remark = (
        f'"{ref.path}" is a GGUF file ({kinds}): config.json is made from its metadata, and it has no tokenizer '
        "files; they come from base_model where that is a folder"
    )
    # In the place of a folder, so that files beside it are not taken for the model's.
    return Checkpoint(ref, path, tensors, config, (describe_file(path),), notes=(remark,))


def name_like(checkpoint: Checkpoint, others: Iterable[Checkpoint]) -> Checkpoint:
    """Return a checkpoint of a GGUF file under the class of another model that such files call by the same name."""
    if not is_gguf(checkpoint.folder) or checkpoint.config.get("model_type") not in _ALIKE:
        return checkpoint
    alike = _ALIKE[checkpoint.config["model_type"]]
    for other in others:
        if other.config.get("model_type") in alike:
            kept = {key: other.config.get(key) for key in ("architectures", "model_type", "sliding_window")}
            return replace(checkpoint, config={**checkpoint.config, **kept})
    return checkpoint


_OTHERWISE = "use the original safetensors weights"


def _make_source(path: Path, header: GgufHeader, name: str, family: Family, tensor: GgufTensor, part: str) -> Source:
    source = _read_as(path, tensor, family.norms_of_one and part.endswith("norm"))
    if part not in family.permuted:
        return source
    heads = header.metadata.get(f"{name}.attention.head_count")
    if part == "attn_k":
        heads = header.metadata.get(f"{name}.attention.head_count_kv", heads)
    rows = tensor.shape[0]
    if type(heads) is not int or heads < 1 or rows % (2 * heads) or rows > _MOST_ROWS:
        raise FormatError(f'{path}: tensor "{tensor.name}" has {rows} rows, and heads are {str(heads)[:100]}')
    return Rows(tensor.name, (source,), _part_pairs(rows, rows // heads))


def _read_as(path: Path, tensor: GgufTensor, of_one: bool) -> Source:
    """A tensor's elements as they are meant."""
    codes = StoredTensor(tensor.name, _BYTES, (tensor.nbytes,), os.fspath(path), tensor.offset, tensor.nbytes)
    dtype = BY_CODE.get(tensor.kind)
    if dtype is None:
        return Dequantized(tensor.name, tensor.shape, tensor.kind, codes, _ORIGIN)
    if not of_one:
        return replace(codes, dtype=dtype, shape=tensor.shape)
    if dtype.name != "float32":
        raise DTypeError(f'{path}: norm "{tensor.name}" is {dtype}, and is expected in float32; {_OTHERWISE}')
    return Dequantized(tensor.name, tensor.shape, "F32_LESS_ONE", codes, dtype)


@lru_cache(maxsize=8)
def _part_pairs(rows: int, head: int) -> RowChoice:
    """Rows of each head: the first ones of all pairs, then the second ones; in the file each follows the other."""
    half = head // 2
    within = [2 * (row % half) + row // half for row in range(head)]
    order = array("q", (start + row for start in range(0, rows, head) for row in within))
    return RowChoice(array("q", range(rows + 1)), array("q", bytes(8 * rows)), order)


def _read_floats(path: Path, tensor: GgufTensor) -> tuple[float, ...]:
    """A short tensor of float32."""
    if tensor.kind != "F32" or tensor.nbytes > 1 << 16:
        raise DTypeError(f'{path}: tensor "{tensor.name}" is {tensor.kind} {list(tensor.shape)}; {_OTHERWISE}')
    with path.open("rb") as file:
        file.seek(tensor.offset)
        content = file.read(tensor.nbytes)
    if len(content) < tensor.nbytes:
        raise FormatError(f'{path}: ends inside of tensor "{tensor.name}"; download the file again')
    return tuple(memoryview(content).cast("f"))
