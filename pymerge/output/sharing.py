"""How much of an output need not be written, because its file system lets files share their extents."""

from __future__ import annotations

from pathlib import Path

from pymerge import _core
from pymerge.schedule.values import SHARE_UNIT, Schedule

__all__ = ["count_shareable"]


def count_shareable(schedule: Schedule, folder: Path) -> int:
    """Bytes of the output in `folder`, which exists, that can be the inputs' own extents."""
    able: dict[str, bool] = {}
    total = 0
    for shard in schedule.shards:
        for placement in shard.placements:
            if placement.twin is None or not placement.in_step:
                continue
            path = placement.twin.path
            if path not in able:
                able[path] = _core.can_share(str(folder), path)
            if able[path]:
                begin = -(-placement.offset // SHARE_UNIT)
                end = (placement.offset + placement.nbytes) // SHARE_UNIT
                total += max(0, end - begin) * SHARE_UNIT
    return total
