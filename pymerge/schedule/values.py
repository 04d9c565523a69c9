"""The schedule: which bytes of which output file each task fills, and the memory it may use."""

from __future__ import annotations

from dataclasses import dataclass

from pymerge.checkpoint.values import StoredTensor
from pymerge.plan.values import MergePlan

__all__ = ["SHARE_UNIT", "Placement", "Resources", "Schedule", "Shard"]

#: Files share their extents in units of this many bytes, at multiples of it.
SHARE_UNIT = 4096


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one task's tensor lies in its shard: absolute byte offset and length.

    `twin` is the stored tensor whose bytes it will have, where that is known without reading: such
    bytes can be shared between the files instead of copied.
    """

    task: int
    offset: int
    nbytes: int
    twin: StoredTensor | None = None

    @property
    def in_step(self) -> bool:
        """Whether the twin lies alike in its file's pages, as sharing needs."""
        return self.twin is not None and (self.twin.offset - self.offset) % SHARE_UNIT == 0


@dataclass(frozen=True, slots=True)
class Shard:
    """One output file, known to the byte before anything is written.

    Attributes:
        name: final file name.
        header: the safetensors header with its length prefix; data starts at len(header).
        placements: in file order, gapless.
        size: bytes of the whole file.
    """

    name: str
    header: bytes
    placements: tuple[Placement, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Resources:
    """What a merge may use.

    Attributes:
        threads: workers that run kernels.
        memory: budget in bytes, resident mapped pages included.
        block: bytes of output that a worker fills at a time (a multiple of 4096).
        buffers: how many blocks may be filled or on their way to the disk at once.
        gathered: bytes of keys that a select may hold per tensor and cut; where that is too little, it
            reads the tensor once or twice more.
        in_place: whether inputs may be read where they are mapped (their pages are then resident until
            a window of them is done with), or only as copies of a few hundred KiB.
        masks: bytes of random masks that may be kept from measures for combines; the others are drawn
            twice.
    """

    threads: int
    memory: int
    block: int
    buffers: int
    gathered: int = 16 << 20
    in_place: bool = True
    masks: int = 0


@dataclass(frozen=True, slots=True)
class Schedule:
    """A plan laid out on disk; tasks run in the order of `shards` and their placements."""

    plan: MergePlan
    shards: tuple[Shard, ...]
    resources: Resources
