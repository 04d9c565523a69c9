"""Which backend `auto` takes: a rule on numbers, which knows neither plans nor devices.

A merge by the processors takes their time for reading, computing and writing, all of which they share out. One by
GPUs takes the longest of what overlaps there: bytes into the GPUs, kernels, bytes out of them, and the processors'
copying from files and into files; and, once, what it takes to start using a GPU. Starting Python and planning, a few
tenths of a second either way, are not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "MARGIN",
    "SMALL",
    "Choice",
    "DeviceFigures",
    "Work",
    "choose",
    "device_room",
    "expect_cpu",
    "expect_device",
    "free_share",
    "say_seconds",
]

#: Of a device's copy rate, what kernels reach (docs/performance.md, an H100: 0.3 and more, but for row_divergence with
#: 0.12 to 0.21): a low guess, since transfers take ten times as long.
_KERNELS = 0.25
#: By what an expectation may be off (docs/performance.md).
MARGIN = 1.5
#: Bytes read and written up to which nothing is asked of any GPU: starting to use one takes seconds, in which two
#: slow lanes move as much.
SMALL = 4 << 30
#: Of a device's free memory, the share that is used unless told otherwise; and of what is used, the share for sources
#: and outputs: the rest is the kernels'.
_FREE = 0.8
_SHARE = 0.85


@dataclass(frozen=True, slots=True)
class Work:
    """A merge in numbers.

    Attributes:
        loaded: bytes of the inputs, each once: what goes to a device.
        read: the same, every pass counted: what the processors read of files.
        written: bytes of the output.
        compute_seconds: of one thread of the processors, for every kernel.
        read_cost, write_cost: of one thread, seconds for each byte read from a file and written to one.
        threads: that share these seconds.
    """

    loaded: int
    read: int
    written: int
    compute_seconds: float
    read_cost: float
    write_cost: float
    threads: int


@dataclass(frozen=True, slots=True)
class DeviceFigures:
    """What was measured of a GPU and the way to it.

    Attributes:
        into, out: bytes per second from and to pinned memory of the host.
        copy: bytes per second, read and written, within its memory.
        start: seconds until its first kernel can run in a new process.
        memory: bytes that it has.
    """

    into: float
    out: float
    copy: float
    start: float
    memory: float


@dataclass(frozen=True, slots=True)
class Choice:
    """The backend's name, and one line that says why."""

    backend: str
    reason: str


def expect_cpu(work: Work) -> float:
    """Seconds that the processors take, if files are read and written at the speed of memory."""
    busy = work.compute_seconds + work.read * work.read_cost + work.written * work.write_cost
    return busy / work.threads


def expect_device(work: Work, devices: Sequence[DeviceFigures]) -> float:
    """Seconds that one or several devices take, if files are read and written at the speed of memory."""
    parts = (
        work.loaded / sum(each.into for each in devices),
        work.written / sum(each.out for each in devices),
        (work.read + work.written) / sum(each.copy * _KERNELS for each in devices),
        (work.loaded * work.read_cost + work.written * work.write_cost) / work.threads,
    )
    return max(each.start for each in devices) + max(parts)


def free_share(free: float) -> int:
    """Bytes of a device that are used where so many are free."""
    return int(_FREE * free)


def device_room(memory: int) -> int:
    """Bytes of tensors, sources and output together, that there is room for in so much of a device's memory."""
    return int(_SHARE * memory)


def choose(cpu: float, device: float, backend: str) -> Choice:
    """The device, if it is the faster one by more than an expectation may be wrong.

    Args:
        cpu: seconds that the processors are expected to take.
        device: the same of the devices.
        backend: of the devices.
    """
    found = f"{say_seconds(cpu)} expected of the processors, {say_seconds(device)} of {backend}"
    if device * MARGIN < cpu:
        return Choice(backend, found)
    return Choice("cpu", found if cpu <= device else f"{found}, which is too close to tell")


def say_seconds(seconds: float) -> str:
    """`about 3 s`, `about 4 min`: no more digits than an expectation has."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 99.5:
        return f"about {seconds:.2g} s"
    return f"about {seconds / 60:.2g} min" if seconds < 6000 else f"about {seconds / 3600:.2g} h"
