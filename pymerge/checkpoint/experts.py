"""One layout for the experts of models that were saved differently: a tensor for each expert, or all in one.

Fused: `gate_up_proj` [experts, 2 inner, width], each expert's gate above its up projection, and `down_proj` [experts,
width, inner]. Apart: `experts.<n>.gate_proj.weight` and so on, or w1, w3, w2. Nothing is copied for it: an expert of a
fused tensor is a range of its file, and a fused tensor is put together of the experts' rows while it is read.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pymerge.checkpoint.sources import RowChoice, Rows
from pymerge.checkpoint.values import Checkpoint, Source, StoredTensor

__all__ = ["align_experts"]

#: Part of an expert -> what it is called.
_ROLES = {"w1": "gate", "gate_proj": "gate", "w3": "up", "up_proj": "up", "w2": "down", "down_proj": "down"}
_APART = re.compile(rf"(?P<block>.+)\.experts\.(?P<number>\d+)\.(?P<part>{'|'.join(_ROLES)})\.weight")
_FUSED = re.compile(r"(?P<block>.+)\.experts\.(?P<part>gate_up_proj|down_proj)")
_ROUTER = re.compile(r"(?P<block>.+)\.gate\.weight")
#: One block under two names.
_BLOCKS = (("block_sparse_moe", "mlp"),)


@dataclass(slots=True)
class _Block:
    """The names of a block's tensors: by (expert, role), of the fused ones, of the router."""

    apart: dict[tuple[int, str], str] = field(default_factory=dict)
    fused: dict[str, str] = field(default_factory=dict)
    router: str | None = None


def align_experts(checkpoint: Checkpoint, like: Checkpoint) -> Checkpoint:
    """Return `checkpoint` with its experts as `like` has them, where both have experts and have them differently."""
    theirs = _find_blocks(like.tensors)
    if not theirs:
        return checkpoint
    tensors: dict[str, Source] = dict(checkpoint.tensors)
    for place, block in _find_blocks(checkpoint.tensors).items():
        wanted = theirs.get(place)
        if wanted is None or (block.apart.keys() == wanted.apart.keys() and block.fused.keys() == wanted.fused.keys()):
            continue
        made = _cut(block, wanted, checkpoint.tensors) if wanted.apart else _fuse(block, wanted, checkpoint.tensors)
        if made is None:
            continue
        for name in (*block.apart.values(), *block.fused.values()):
            del tensors[name]
        tensors.update(made)
        if block.router and wanted.router:
            tensors[wanted.router] = tensors.pop(block.router)
    return replace(checkpoint, tensors=tensors)


def _find_blocks(tensors: Mapping[str, Source]) -> dict[str, _Block]:
    blocks: dict[str, _Block] = {}
    for name in tensors:
        if found := _APART.fullmatch(name):
            block = blocks.setdefault(_normalize(found["block"]), _Block())
            block.apart[int(found["number"]), _ROLES[found["part"]]] = name
        elif found := _FUSED.fullmatch(name):
            blocks.setdefault(_normalize(found["block"]), _Block()).fused[found["part"]] = name
    for name in tensors:
        found = _ROUTER.fullmatch(name)
        if found and (place := _normalize(found["block"])) in blocks:
            blocks[place].router = name
    return blocks


def _normalize(block: str) -> str:
    for one, other in _BLOCKS:
        if block.endswith(f".{one}"):
            return block.removesuffix(one) + other
    return block


def _cut(block: _Block, wanted: _Block, tensors: Mapping[str, Source]) -> dict[str, Source] | None:
    """Experts of fused tensors; None if these are not of the layout stated above."""
    count = 1 + max(number for number, _ in wanted.apart)
    whole = {part: tensors[name] for part, name in block.fused.items()}
    both, down = whole.get("gate_up_proj"), whole.get("down_proj")
    if not isinstance(both, StoredTensor) or not isinstance(down, StoredTensor):
        return None
    if len(both.shape) != 3 or both.shape != (count, 2 * down.shape[2], down.shape[1]) or down.shape[0] != count:
        return None
    made: dict[str, Source] = {}
    for (number, role), name in wanted.apart.items():
        fused, inner = (down, down.shape[1]) if role == "down" else (both, down.shape[2])
        per_row = fused.shape[2] * fused.dtype.bits // 8
        first = number * fused.shape[1] + (inner if role == "up" else 0)
        made[name] = replace(
            fused, shape=(inner, fused.shape[2]), offset=fused.offset + first * per_row, nbytes=inner * per_row
        )
    return made


def _fuse(block: _Block, wanted: _Block, tensors: Mapping[str, Source]) -> dict[str, Source] | None:
    """Fused tensors of experts; None if an expert is incomplete, or one is larger than others."""
    numbers = sorted({number for number, _ in block.apart})
    made: dict[str, Source] = {}
    for part, name in wanted.fused.items():
        roles = ("gate", "up") if part == "gate_up_proj" else ("down",)
        names = [block.apart.get((number, role)) for number in numbers for role in roles]
        sources = [tensors[each] for each in names if each is not None]
        if len(sources) < len(names) or len({source.shape for source in sources}) != 1:
            return None
        rows, width = sources[0].shape
        choice = RowChoice(
            starts=array("q", range(len(sources) * rows + 1)),
            parts=array("q", (part for part in range(len(sources)) for _ in range(rows))),
            rows=array("q", list(range(rows)) * len(sources)),
        )
        made[name] = Rows(name, tuple(sources), choice, (len(numbers), len(roles) * rows, width))
    return made
