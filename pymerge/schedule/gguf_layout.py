"""Layout of a GGUF file: metadata, where each tensor lies, then the tensors, each at a multiple of 32 bytes."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pymerge.checkpoint.gguf_header import KIND_NUMBERS
from pymerge.checkpoint.sources import Packed
from pymerge.checkpoint.values import StoredTensor
from pymerge.plan.gguf import ALIGNMENT
from pymerge.plan.values import TensorTask
from pymerge.schedule.values import Placement, Shard

__all__ = ["GgufHead", "lay_out_gguf"]

_VERSION = 3
#: Forms of `Packed` that are called otherwise in files.
_NAMES = {"F32_PLUS_ONE": "F32"}


@dataclass(frozen=True, slots=True)
class GgufHead:
    """What a file says before its tensors.

    Attributes:
        pairs: metadata, encoded, by key.
        constants: short float32 vectors that are worked out from settings.
    """

    pairs: Mapping[str, bytes]
    constants: Mapping[str, Sequence[float]] = field(default_factory=dict)


def lay_out_gguf(
    name: str, tasks: Sequence[TensorTask], twins: Sequence[StoredTensor | None], head: GgufHead
) -> tuple[Shard, ...]:
    """Return the one file of an output whose tasks are `pymerge.plan.gguf.convert_plan`'s.

    Constants are the first tensors, and part of the shard's header.
    """
    ordered = sorted(range(len(tasks)), key=lambda i: _in_order(tasks[i].name))
    entries = bytearray()
    at = 0
    data = bytearray()
    for title, values in head.constants.items():
        entries += _write_entry(title, (len(values),), "F32", at)
        data += struct.pack(f"<{len(values)}f", *values)
        data += bytes(-len(data) % ALIGNMENT)
        at = len(data)
    starts = []
    for index in ordered:
        task = tasks[index]
        packed = task.sources[0] if isinstance(task.sources[0], Packed) else None
        kind, shape = (packed.form, packed.elements) if packed else (task.dtype.code, task.shape)
        entries += _write_entry(task.name, shape, _NAMES.get(kind, kind), at)
        starts.append(at)
        at += task.nbytes
    counts = struct.pack("<4sIQQ", b"GGUF", _VERSION, len(tasks) + len(head.constants), len(head.pairs))
    header = counts + b"".join(head.pairs.values()) + bytes(entries)
    header += bytes(-len(header) % ALIGNMENT)
    begin = len(header)
    placements = tuple(
        Placement(index, begin + start, tasks[index].nbytes, twins[index])
        for index, start in zip(ordered, starts, strict=True)
    )
    return (Shard(name, header + bytes(data), placements, begin + at),)


def _in_order(name: str) -> tuple[int, int, str]:
    """Embedding, layers by number, then what comes after them: as a model runs."""
    found = re.match(r"blk\.(\d+)\.", name)
    if found:
        return 1, int(found[1]), name
    return (0 if name.startswith("token_embd") else 2), 0, name


def _write_entry(name: str, shape: Sequence[int], kind: str, offset: int) -> bytes:
    text = name.encode()
    dims = shape[::-1]
    form = f"<Q{len(text)}sI{len(dims)}QIQ"
    return struct.pack(form, len(text), text, len(dims), *dims, KIND_NUMBERS[kind], offset)
