"""What a merge fetches from a hub first, and whether the disk of the hub's cache has room for it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pymerge.errors import ResourceError
from pymerge.plan.missing import list_missing
from pymerge.plan.values import MergePlan

__all__ = ["count_fetched", "count_fetched_beside", "refuse_full_cache"]


def count_fetched(plan: MergePlan) -> int:
    """Bytes of weight files that are still to come."""
    return sum(file.size for file in list_missing(plan).values())


def count_fetched_beside(plan: MergePlan, folder: Path) -> int:
    """Those of them that come to the disk of a folder, which exists."""
    disk = os.stat(folder).st_dev
    # A missing file's folder, the snapshot, has the model's small files already.
    return sum(file.size for path, file in list_missing(plan).items() if os.stat(Path(path).parent).st_dev == disk)


def refuse_full_cache(plan: MergePlan) -> None:
    """Compare what a plan fetches with what the cache's disk has.

    Raises:
        ResourceError: it has too little.
    """
    needed: dict[int, int] = {}
    places: dict[int, Path] = {}
    for path, file in list_missing(plan).items():
        folder = Path(path).parent
        disk = os.stat(folder).st_dev
        needed[disk] = needed.get(disk, 0) + file.size
        places.setdefault(disk, folder)
    for disk, folder in places.items():
        free = shutil.disk_usage(folder).free
        if needed[disk] > free:
            raise ResourceError(
                f"the hub's cache, {folder.parent.parent.parent}: {needed[disk]:,} bytes of weights are to be fetched, "
                f"and its disk has {free:,} free; make room for {needed[disk] - free:,} more, or name a folder on "
                "another disk: HF_HUB_CACHE, or --transformers-cache"
            )
