"""The pipeline's scheduling, on a simulated device: what overlaps, in what order, in how much memory."""

from __future__ import annotations

import itertools
import queue
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pymerge.backends.protocol import NoRoom
from pymerge.checkpoint.values import Source, StoredTensor
from pymerge.dtypes import BY_NAME
from pymerge.execute.pipeline import (
    Answer,
    CombineJob,
    Failure,
    Made,
    MeasureJob,
    Merged,
    OnHost,
    Outcome,
    Pipeline,
    bytes_needed,
)
from pymerge.ops import Gram, KeySample, WeightedSum
from pymerge.plan.values import TensorTask

FLOAT32 = BY_NAME["float32"]
#: Seconds after which a test says that nothing happens any more.
PATIENCE = 20


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

    def load(self, stored: StoredTensor, read: Callable[[int, Any], None]) -> Copied:
        self.loads.append((stored.name, stored.path))
        self.waits("load", stored.name)
        self.fails("load", stored.name)
        return Copied(stored.name, stored.path)

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


GRAM, SUM = Gram((0, 1)), WeightedSum((0, 1), (0.5, 0.5))
#: Bytes of an output block.
BLOCK = 16


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


def drive(
    lane: SimulatedLane, tasks: list[TensorTask], measures: list[int], loaders: int = 2, is_slow: bool = False
) -> tuple[set[str], int]:
    """Take tasks through their measures and combines, and write them; returns (what the host did, most bytes aboard).

    `is_slow`: the disk; nothing is written while anything else goes on.
    """
    outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    pipeline = Pipeline(lane, outcomes.put, loaders, None, read_nothing)
    left = list(measures)
    writer = SimulatedWriter(tasks)
    on_host: set[str] = set()
    most = idle = 0

    def go_on(number: int) -> None:
        if left[number]:
            left[number] -= 1
            pipeline.submit(MeasureJob(number, tasks[number], GRAM))
        else:
            pipeline.submit(CombineJob(0, number, tasks[number], SUM, writer.edges(number)))

    try:
        for number in range(len(tasks)):
            go_on(number)
        while len(writer.given) + len(writer.skipped) < len(tasks):
            most = max(most, pipeline._used)
            try:
                outcome = outcomes.get(timeout=0.002 if writer.blocks else PATIENCE)
            except queue.Empty:
                idle = 0 if writer.write_one() else idle + 1
                assert idle < PATIENCE / 0.002, "nothing happens any more"
                continue
            idle = 0
            if isinstance(outcome, Failure):
                raise outcome.error
            if isinstance(outcome, Answer):
                assert outcome.answer == tasks[outcome.ticket].name
                go_on(outcome.ticket)
            elif isinstance(outcome, Merged):
                assert outcome.job.segment not in writer.given
                writer.given[outcome.job.segment] = outcome.made
                while not is_slow and writer.write_one():
                    pass
            elif isinstance(outcome, OnHost):
                job = outcome.job
                on_host.add(job.task.name)
                if isinstance(job, CombineJob):
                    writer.skipped.add(job.segment)
                else:
                    go_on(job.ticket)
        while writer.write_one():
            pass
        assert not writer.blocks
        assert pipeline._used == 0
        assert not pipeline._stays
    finally:
        pipeline.close()
    return on_host, most


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=12),
    room=st.integers(1, 200),
    loaders=st.integers(1, 4),
    seed=st.integers(0, 999),
    is_slow=st.booleans(),
)
def test_any_plan_comes_through(sizes: list[int], room: int, loaders: int, seed: int, is_slow: bool) -> None:
    choose = random.Random(seed)
    tasks = [make_task(number, size) for number, size in enumerate(sizes)]
    measures = [choose.randrange(3) for _ in tasks]
    room = max(12 * room, max(map(bytes_needed, tasks)))
    lane = SimulatedLane(room)
    on_host, most = drive(lane, tasks, measures, loaders, is_slow)
    assert not on_host
    assert most <= room
    # Once each, however many requests a task has.
    assert sorted(lane.loads) == sorted((task.name, source.path) for task in tasks for source in task.sources)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 9999), loaders=st.integers(1, 3), is_slow=st.booleans())
def test_out_of_memory_means_fewer_at_once_or_the_host(seed: int, loaders: int, is_slow: bool) -> None:
    choose = random.Random(seed)
    lock = threading.Lock()

    def fails(what: str, name: str) -> None:
        with lock:
            if choose.random() < 0.3 and what not in ("wait", "copy"):
                raise NoRoom

    tasks = [make_task(number, choose.randrange(1, 50)) for number in range(8)]
    measures = [choose.randrange(3) for _ in tasks]
    drive(SimulatedLane(2000, fails), tasks, measures, loaders, is_slow)


def test_a_task_that_never_fits_goes_to_the_host() -> None:
    def fails(what: str, name: str) -> None:
        if name == "t1":
            raise NoRoom

    tasks = [make_task(number, 10) for number in range(3)]
    assert drive(SimulatedLane(10_000, fails), tasks, [1, 1, 1])[0] == {"t1"}


def test_loading_kernels_and_copies_out_overlap() -> None:
    # The first task's combine waits for the second one's sources, its edges for the second's kernel.
    seen = {what: threading.Event() for what in ("load t1", "combine t1")}

    def waits(what: str, name: str) -> None:
        if f"{what} {name}" in seen:
            seen[f"{what} {name}"].set()
        if (what, name) == ("combine", "t0"):
            assert seen["load t1"].wait(PATIENCE)
        if (what, name) == ("copy", "t0"):
            assert seen["combine t1"].wait(PATIENCE)

    drive(SimulatedLane(10_000, waits=waits), [make_task(number, 10) for number in range(2)], [0, 0])


def test_combines_go_before_measures() -> None:
    lane = SimulatedLane(10_000)
    outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    started, going = threading.Event(), threading.Event()

    def before() -> None:
        started.set()
        assert going.wait(PATIENCE)

    pipeline = Pipeline(lane, outcomes.put, 1, before, read_nothing)
    assert started.wait(PATIENCE)
    pipeline.submit(MeasureJob(0, make_task(0, 5), GRAM))
    pipeline.submit(CombineJob(0, 1, make_task(1, 5), SUM, (0, 0)))
    while pipeline._jobs.qsize() < 2:
        threading.Event().wait(0.001)
    going.set()
    for _ in range(2):
        outcomes.get(timeout=PATIENCE)
    pipeline.close()
    assert lane.kernels == [("combine", "t1"), ("measure", "t0")]


def test_a_survey_lets_its_tensors_go() -> None:
    lane = SimulatedLane(130)  # room for one
    outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    pipeline = Pipeline(lane, outcomes.put, 2, None, read_nothing)
    for number in range(3):
        pipeline.submit(MeasureJob(number, make_task(number, 10), KeySample((0, 1), 1000)))
    answers = [outcomes.get(timeout=PATIENCE) for _ in range(3)]
    pipeline.close()
    assert sorted(answer.ticket for answer in answers if isinstance(answer, Answer)) == [0, 1, 2]
    assert pipeline._used == 0


def test_an_output_stays_on_the_device_until_it_is_written() -> None:
    lane = SimulatedLane(2400)  # two tasks' sources and outputs
    outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    pipeline = Pipeline(lane, outcomes.put, 2, None, read_nothing)
    tasks = [make_task(number, 100) for number in range(6)]
    for number, task in enumerate(tasks):
        pipeline.submit(CombineJob(0, number, task, SUM, (BLOCK, BLOCK)))
    made = {}
    for _ in range(4):
        outcome = outcomes.get(timeout=PATIENCE)
        assert isinstance(outcome, Merged)
        made[outcome.job.segment] = outcome.made
    # Four outputs and the sources of none fit beside another task; of each, the host has its edges.
    with pytest.raises(queue.Empty):
        outcomes.get(timeout=0.1)
    assert lane.copied == 4 * 2 * BLOCK
    assert pipeline._used == 4 * 400
    assert len(lane.loads) == 2 * 4
    # What is between the edges is enough for the next: blocks at the edges wait for neighbors.
    out = bytearray(400 - 2 * BLOCK)
    made[0].read(BLOCK, memoryview(out), True)
    assert out == content("t0", BLOCK, 400 - BLOCK)
    assert isinstance(outcomes.get(timeout=PATIENCE), Merged)
    pipeline.close()
    # To look again: what is gone is zeros, the edges are there.
    out = bytearray(400)
    made[0].read(0, memoryview(out), False)
    assert out == content("t0", 0, BLOCK) + bytes(400 - 2 * BLOCK) + content("t0", 400 - BLOCK, 400)
    made[1].read(0, memoryview(out), False)
    assert out == content("t1", 0, 400)
    assert made[1]._left == 400 - 2 * BLOCK


@pytest.mark.parametrize("what", ["load", "measure", "combine", "wait", "copy"])
def test_what_a_thread_raises_is_told(what: str) -> None:
    def fails(at: str, name: str) -> None:
        if at == what:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        drive(SimulatedLane(10_000, fails), [make_task(0, 10)], [1], loaders=1)


def test_closing_drops_what_was_not_begun() -> None:
    begun, going = threading.Event(), threading.Event()

    def waits(what: str, name: str) -> None:
        begun.set()
        assert going.wait(PATIENCE)

    lane = SimulatedLane(100_000, waits=waits)
    pipeline = Pipeline(lane, lambda outcome: None, 1, None, read_nothing)
    for number in range(50):
        pipeline.submit(MeasureJob(number, make_task(number, 10), GRAM))
    assert begun.wait(PATIENCE)
    threading.Timer(0.05, going.set).start()
    pipeline.close()
    assert len(lane.loads) < 5
