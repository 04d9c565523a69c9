"""What a pipeline needs of a device, and what is merged there as the engine reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, Protocol

from pymerge.checkpoint.values import Source
from pymerge.dtypes import DType
from pymerge.execute.tensors import Read
from pymerge.ops import Combine, Measure
from pymerge.plan.values import TensorTask

__all__ = ["Lane", "Made", "bytes_needed"]


def bytes_needed(task: TensorTask) -> int:
    """What a task holds on a device: its sources and its output."""
    return sum(source.nbytes for source in task.sources) + task.nbytes


class Lane(Protocol):
    """What a pipeline needs of a device; `load` and those that run kernels may raise NoRoom."""

    @property
    def room(self) -> int:
        """Bytes of sources and outputs that may be aboard."""
        ...

    def load(self, sources: Sequence[Source], reads: Sequence[Read]) -> list[Any]:
        """Copy tensors in with one transfer, their bytes as `reads` give them; called by several threads, returns as
        soon as the rest happens by itself.
        """
        ...

    def measure(self, request: Measure, operands: list[Any], compute: DType) -> object:
        """Run one measure on what `load` returned; the answer is there on return."""
        ...

    def combine(self, request: Combine, operands: list[Any], compute: DType, dtype: DType, count: int) -> Any:
        """Start one combine."""
        ...

    def wait(self, made: Any) -> None:
        """Return when a combine is done."""
        ...

    def copy_out(self, made: Any, begin: int, out: Any) -> None:
        """Copy bytes of what a combine made, from a place on, into a buffer; called by several threads."""
        ...


class Made:
    """What a combine made: on the device until it was read once, but for its edges.

    These are copied out at once. They share blocks of the output with other tensors and are not read before those are
    made; what is between them waits for nothing but the writer.
    """

    def __init__(self, lane: Lane, made: Any, nbytes: int, edges: tuple[int, int], let_go: Callable[[], None]) -> None:
        """`let_go`: called when nothing is on the device any more."""
        self._lane = lane
        self._made = made
        self._lock = Lock()
        self._let_go = let_go
        head, tail = edges if sum(edges) < nbytes else (nbytes, 0)
        self._inner = (head, nbytes - tail)
        self._left = nbytes - head - tail
        self._edges = [(begin, bytearray(size)) for begin, size in ((0, head), (nbytes - tail, tail)) if size]
        for begin, data in self._edges:
            lane.copy_out(made, begin, memoryview(data))
        if not self._left:
            self._go()

    def read(self, begin: int, out: Any, once: bool) -> None:
        """Copy bytes from `begin` on into a buffer; see `Engine.fill_made`."""
        end = begin + len(out)
        for first, data in self._edges:
            low, high = max(begin, first), min(end, first + len(data))
            if low < high:
                out[low - begin : high - begin] = memoryview(data)[low - first : high - first]
        low, high = max(begin, self._inner[0]), min(end, self._inner[1])
        if low >= high:
            return
        made, part = self._made, out[low - begin : high - begin]
        if made is None and not once:
            part[:] = bytes(high - low)
            return
        self._lane.copy_out(made, low, part)
        if once:
            with self._lock:
                self._left -= high - low
                is_last = self._left == 0
            if is_last:
                self._go()

    def _go(self) -> None:
        self._made = None
        self._let_go()
