"""What an earlier attempt left: found by the journal, believed only if the bytes have the digest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pymerge import _core
from pymerge.plan.values import TensorTask
from pymerge.schedule.values import Placement, Schedule, Shard

__all__ = ["Kept", "restore", "temporary_name"]

#: Bytes that are checked between two looks at the keyboard.
_GROUP = 256 << 20


def temporary_name(final: str) -> str:
    """The name that an output file has until it is whole and synced."""
    return f".{final}.partial"


@dataclass(frozen=True, slots=True)
class Kept:
    """Tensors that need not be merged again.

    Attributes:
        segments: of each shard of the schedule, the numbers of segments, in order; the header is 0.
        digests: tensor -> digest.
    """

    segments: tuple[tuple[int, ...], ...]
    digests: Mapping[str, str]


def restore(
    schedule: Schedule, folder: Path, recorded: Mapping[str, str], tell: Callable[[str], None] = lambda _: None
) -> Kept:
    """Find what `folder` holds of a schedule, and give it back its temporary names.

    Args:
        recorded: tensor -> digest, from the journal.
        tell: called now and then with the name of a tensor that is checked.

    Raises:
        ResourceError: the folder refuses.
    """
    tasks = schedule.plan.tasks
    kept: list[tuple[int, ...]] = []
    digests = {}
    for shard in schedule.shards:
        path, numbers = _find(shard, folder), []
        for number in _check(shard, tasks, path, recorded, schedule.resources.threads, tell) if path else ():
            numbers.append(number)
            name = tasks[shard.placements[number - 1].task].name
            digests[name] = recorded[name]
        if path and numbers:
            # A finished shard is opened again: with all of it kept, that writes a page and renames it back.
            path.replace(folder / temporary_name(shard.name))
        kept.append(tuple(numbers))
    return Kept(tuple(kept), digests)


def _find(shard: Shard, folder: Path) -> Path | None:
    # While the temporary file is there, the final name can only be an older merge's.
    paths = (folder / temporary_name(shard.name), folder / shard.name)
    return next((path for path in paths if path.is_file() and not path.is_symlink()), None)


def _check(
    shard: Shard,
    tasks: Sequence[TensorTask],
    path: Path,
    recorded: Mapping[str, str],
    threads: int,
    tell: Callable[[str], None],
) -> Iterator[int]:
    """The numbers of the segments whose bytes are those that were recorded."""
    size = path.stat().st_size
    for group in _group(
        (number, place)
        for number, place in enumerate(shard.placements, 1)
        if place.nbytes and tasks[place.task].name in recorded and place.offset + place.nbytes <= size
    ):
        tell(tasks[group[0][1].task].name)
        found = _core.digest_ranges(str(path), [(place.offset, place.nbytes) for _, place in group], threads)
        for (number, place), digest in zip(group, found, strict=True):
            if digest == recorded[tasks[place.task].name]:
                yield number


def _group(places: Iterator[tuple[int, Placement]]) -> Iterator[list[tuple[int, Placement]]]:
    group: list[tuple[int, Placement]] = []
    nbytes = 0
    for number, place in places:
        group.append((number, place))
        nbytes += place.nbytes
        if nbytes >= _GROUP:
            yield group
            group, nbytes = [], 0
    if group:
        yield group
