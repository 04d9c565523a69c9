"""What a running merge tells its caller: progress while it runs, a report at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

__all__ = ["ExecutionReport", "OnProgress", "OnShard", "Progress"]


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a merge; sizes in bytes, `seconds` since its start.

    `read` counts every pass over the inputs; `written` what has reached the output files, out of
    `total`. `tensor` is the output tensor last handed to the kernels. `fetched` is what has come from a hub, of
    `to_fetch` in all.
    """

    seconds: float
    read: int
    written: int
    total: int
    tensor: str
    fetched: int = 0
    to_fetch: int = 0


OnProgress: TypeAlias = Callable[[Progress], None]
#: Called with each weight file that has its final name and all of its bytes.
OnShard: TypeAlias = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class ExecutionReport:
    """What a finished merge did and needed.

    Attributes:
        seconds: wall time from the first request to the last synced shard.
        cpu_seconds: user plus system time of the process in that span.
        read, written: bytes, all passes counted; of derived inputs, the bytes of their elements as kernels see them.
        copied: output tensors that were copied, not calculated.
        shared: bytes of the output that are the inputs' own extents, neither read nor written.
        kept: bytes of the output that an earlier attempt had written.
        peak_anonymous, peak_resident: bytes; the latter includes mapped pages of the inputs.
        measure_seconds, fill_seconds: what workers spent measuring inputs and filling output, summed
            over them; the rest of `seconds` times threads they waited.
        limit: what bounded the speed: "reading", "computing" or "writing".
        direct: True if the output went past the page cache.
        nonfinite: per output tensor, how many non-finite values were stored (only where allowed).
        digests: per output tensor, of its bytes (csrc/io/digest.h); those shared with the inputs have none.
        backend: what merged.
        reason: why auto took it; empty where it was asked for, or there was nothing to choose.
        no_room: output tensors that no GPU had room for, which the CPU's kernels merged.
    """

    seconds: float
    cpu_seconds: float
    read: int
    written: int
    copied: int
    shared: int
    kept: int
    peak_anonymous: int
    peak_resident: int
    measure_seconds: float
    fill_seconds: float
    limit: str
    direct: bool
    nonfinite: Mapping[str, int] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    backend: str = "cpu"
    reason: str = ""
    no_room: int = 0
