"""A simulated device and the writer of what it makes, for the pipeline's tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pymerge.checkpoint.values import Source, StoredTensor
from pymerge.dtypes import BY_NAME
from pymerge.execute.lanes import Made
from pymerge.ops import Gram, WeightedSum
from pymerge.plan.values import TensorTask

FLOAT32 = BY_NAME["float32"]
GRAM, SUM = Gram((0, 1)), WeightedSum((0, 1), (0.5, 0.5))
#: Bytes of an output block.
BLOCK = 16


def make_task(number: int, count: int, sources: int = 2) -> TensorTask:
    """A task of some tensors of `count` elements."""
    stored = tuple(StoredTensor(f"t{number}", FLOAT32, (count,), f"m{place}", 0, 4 * count) for place in range(sources))
    return TensorTask(f"t{number}", (count,), FLOAT32, stored, ("",) * sources, None, FLOAT32)


def read_nothing(source: Source) -> Callable[[int, Any], None]:
    """Simulated lanes look at no bytes."""
    return lambda begin, out: None


@dataclass(eq=False)
class Copied:
    """A tensor on the simulated device."""

    name: str
    path: str
    alive: bool = True


@dataclass
class SimulatedLane:
    """A device of `room` bytes; `fails(what, name)` may raise, `waits(what, name)` takes its time."""

    room: int
    fails: Callable[[str, str], None] = lambda what, name: None
    waits: Callable[[str, str], None] = lambda what, name: None
    loads: list[tuple[str, str]] = field(default_factory=list)
    transfers: list[list[tuple[str, str]]] = field(default_factory=list)
    kernels: list[tuple[str, str]] = field(default_factory=list)
    inside: set[str] = field(default_factory=set)
    copied: int = 0

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        assert what not in self.inside, f"two threads at once: {what}"
        self.inside.add(what)
        try:
            yield
        finally:
            self.inside.remove(what)

    def load(self, sources: list[StoredTensor], reads: list[Callable[[int, Any], None]]) -> list[Copied]:
        self.transfers.append([(stored.name, stored.path) for stored in sources])
        for stored in sources:
            self.waits("load", stored.name)
            self.fails("load", stored.name)
        self.loads += self.transfers[-1]
        return [Copied(stored.name, stored.path) for stored in sources]

    def _check(self, operands: list[Any]) -> str:
        name: str = operands[0].name
        assert [(each.name, each.path) for each in operands] == [(name, f"m{i}") for i in range(len(operands))]
        assert all(each.alive for each in operands)
        return name

    def measure(self, request: Any, operands: list[Any], compute: Any) -> object:
        with self._alone("kernel"):
            name = self._check(operands)
            self.waits("measure", name)
            self.fails("measure", name)
            self.kernels.append(("measure", name))
            return name

    def combine(self, request: Any, operands: list[Any], compute: Any, dtype: Any, count: int) -> Any:
        with self._alone("kernel"):
            name = self._check(operands)
            self.waits("combine", name)
            self.fails("combine", name)
            self.kernels.append(("combine", name))
            return name, operands

    def wait(self, made: Any) -> None:
        with self._alone("wait"):
            name, operands = made
            self.waits("wait", name)
            self.fails("wait", name)
            assert all(each.alive for each in operands), "a source was let go before its combine was done"
            for each in operands:
                each.alive = False

    def copy_out(self, made: Any, begin: int, out: memoryview) -> None:
        name, operands = made
        assert not any(each.alive for each in operands), "copied out before it was done"
        self.waits("copy", name)
        self.fails("copy", name)
        self.copied += len(out)
        out[:] = content(name, begin, begin + len(out))


def content(name: str, begin: int, end: int) -> bytes:
    """What a simulated combine makes."""
    return bytes((ord(name[-1]) + at) % 251 for at in range(begin, end))


@dataclass
class SimulatedWriter:
    """Reads a file of tasks block by block; a block needs all tasks in it, given or `skipped`."""

    tasks: list[TensorTask]
    given: dict[int, Made] = field(default_factory=dict)
    skipped: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        begins = self.begins = [sum(task.nbytes for task in self.tasks[:at]) for at in range(len(self.tasks) + 1)]
        self.blocks: list[list[tuple[int, int, int]]] = []
        for low in range(0, begins[-1], BLOCK):
            parts = [
                (number, max(low, begin) - begin, min(low + BLOCK, end) - begin)
                for number, (begin, end) in enumerate(itertools.pairwise(begins))
            ]
            self.blocks.append([part for part in parts if part[1] < part[2]])

    def edges(self, number: int) -> tuple[int, int]:
        """Of a task: see `CombineJob`."""
        return -self.begins[number] % BLOCK, self.begins[number + 1] % BLOCK

    def write_one(self) -> bool:
        """Read the first block that is there as a whole; whether there is one."""
        for block in self.blocks:
            if all(number in self.given or number in self.skipped for number, *_ in block):
                self.blocks.remove(block)
                for number, low, high in block:
                    if number in self.given:
                        out = bytearray(high - low)
                        self.given[number].read(low, memoryview(out), True)
                        assert out == content(self.tasks[number].name, low, high)
                return True
        return False
