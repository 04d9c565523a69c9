"""Output layout: which tensor goes into which shard, at which byte; known before anything is written.

The header is padded so that as many bytes as possible lie in their pages as they do in the file that
they are copied from: then the two files can share them (see `Placement`).

Tensors are dealt to shards in order of their names, a shard being closed before it would pass the
limit. Within a shard wider element types come first, then names, so that every tensor is aligned to
its element (the order in which the safetensors library writes).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pymerge.checkpoint.values import StoredTensor
from pymerge.plan.values import TensorTask
from pymerge.schedule.values import SHARE_UNIT, Placement, Shard

__all__ = ["lay_out"]

#: Data starts at a multiple of this, a cache line, unless a copy's source starts elsewhere.
_ALIGNMENT = 64
#: And always at a multiple of this, the widest element.
_WIDEST = 8
#: Who reads the header learns that its tensors are torch's, as the field's loaders ask.
METADATA = {"format": "pt"}


def lay_out(
    tasks: Sequence[TensorTask],
    shard_size: int,
    twins: Sequence[StoredTensor | None] = (),
    *,
    single: str = "model.safetensors",
    metadata: Mapping[str, str] = METADATA,
) -> tuple[Shard, ...]:
    """Return the shards of an output of `tasks`, none larger than `shard_size` bytes of data.

    A tensor larger than the limit gets its own shard; a limit of 0 or less means one shard. `twins`
    names, for each task, the stored tensor that it copies (see `Placement`). `single` is the file's name if
    there is one; `metadata` stands in every header.
    """
    twins = twins or [None] * len(tasks)
    groups = list(_deal(tasks, shard_size))
    if len(groups) == 1:
        names = [single]
    else:
        names = [f"model-{i:05d}-of-{len(groups):05d}.safetensors" for i in range(1, len(groups) + 1)]
    return tuple(_place(name, tasks, group, twins, metadata) for name, group in zip(names, groups, strict=True))


def _deal(tasks: Sequence[TensorTask], limit: int) -> Iterable[list[int]]:
    group: list[int] = []
    size = 0
    for index in sorted(range(len(tasks)), key=lambda i: tasks[i].name):
        nbytes = tasks[index].nbytes
        if group and limit > 0 and size + nbytes > limit:
            yield group
            group, size = [], 0
        group.append(index)
        size += nbytes
    yield group


def _place(
    name: str,
    tasks: Sequence[TensorTask],
    group: list[int],
    twins: Sequence[StoredTensor | None],
    metadata: Mapping[str, str],
) -> Shard:
    ordered = sorted(group, key=lambda i: (-tasks[i].dtype.bits, tasks[i].name))
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    relative = 0
    starts = []
    for index in ordered:
        task = tasks[index]
        end = relative + task.nbytes
        entries[task.name] = {"dtype": task.dtype.code, "shape": list(task.shape), "data_offsets": [relative, end]}
        starts.append(relative)
        relative = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    steps: Counter[int] = Counter()
    for index, start in zip(ordered, starts, strict=True):
        twin = twins[index]
        if twin is not None and (twin.offset - start) % _WIDEST == 0:
            steps[(twin.offset - start) % SHARE_UNIT] += twin.nbytes
    unit, step = (SHARE_UNIT, steps.most_common(1)[0][0]) if steps else (_ALIGNMENT, 0)
    text += b" " * ((step - (8 + len(text))) % unit)
    header = len(text).to_bytes(8, "little") + text
    placements = tuple(
        Placement(index, len(header) + start, tasks[index].nbytes, twins[index])
        for index, start in zip(ordered, starts, strict=True)
    )
    return Shard(name, header, placements, len(header) + relative)
