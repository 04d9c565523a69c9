"""How much of an output need not be written, because its file system lets files share their extents."""

from __future__ import annotations

from pathlib import Path

from pymerge import _core
from pymerge.schedule.values import SHARE_UNIT, Schedule, Shard

__all__ = ["count_shareable"]


def count_shareable(schedule: Schedule, folder: Path) -> int:
    """Bytes of the output in `folder`, which exists, that can be the inputs' own extents."""
    able: dict[str, bool] = {}
    total = 0
    for shard in schedule.shards:
        for path, begin, end in _list_runs(shard):
            if path not in able:
                able[path] = _core.can_share(str(folder), path)
            if able[path]:
                total += max(0, end // SHARE_UNIT - -(-begin // SHARE_UNIT)) * SHARE_UNIT
    return total


def _list_runs(shard: Shard) -> list[tuple[str, int, int]]:
    """(path, begin, end) of what is copied from one piece of a file, however many tensors that is.

    They share pages that belong to two of them (`share_twins` in csrc/io/shard_writer.cc).
    """
    runs: list[tuple[str, int, int]] = []
    shift = 0
    for placement in shard.placements:
        twin = placement.twin
        if twin is None or not placement.in_step:
            continue
        begin, end = placement.offset, placement.offset + placement.nbytes
        if runs and runs[-1][0] == twin.path and runs[-1][2] == begin and twin.offset - begin == shift:
            begin = runs.pop()[1]
        else:
            shift = twin.offset - begin
        runs.append((twin.path, begin, end))
    return runs
