"""The pipeline's scheduling, on a simulated device: what overlaps, in what order, in how much memory."""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Iterator
from unittest import mock

import pytest
from execute.simulated import BLOCK, GRAM, SUM, SimulatedLane, SimulatedWriter, content, make_task, read_nothing
from hypothesis import given, settings
from hypothesis import strategies as st

from pymerge.backends.protocol import NoRoom
from pymerge.execute.lanes import bytes_needed
from pymerge.execute.pipeline import (
    Answer,
    CombineJob,
    Failure,
    MeasureJob,
    Merged,
    OnHost,
    Outcome,
    Pipeline,
)
from pymerge.ops import KeySample
from pymerge.plan.values import TensorTask

#: Seconds after which a test says that nothing happens any more.
PATIENCE = 20
#: Bytes up to which the simulated tasks' sources count as small.
SMALL = 300


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


@pytest.fixture(autouse=True, scope="module")
def _small() -> Iterator[None]:
    with mock.patch("pymerge.execute.pipeline.SMALL", SMALL):
        yield


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


def test_small_sources_that_wait_are_loaded_together() -> None:
    begun, going = threading.Event(), threading.Event()

    def waits(what: str, name: str) -> None:
        begun.set()
        assert going.wait(PATIENCE)

    lane = SimulatedLane(100_000, waits=waits)
    outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    pipeline = Pipeline(lane, outcomes.put, 1, None, read_nothing)
    sizes = [100, 5, 5, 5, 40, 30, 100, 5, 5]
    for number, size in enumerate(sizes):
        pipeline.submit(MeasureJob(number, make_task(number, size), GRAM))
        assert begun.wait(PATIENCE)
    going.set()
    for _ in sizes:
        assert isinstance(outcomes.get(timeout=PATIENCE), Answer)
    pipeline.close()
    # In bytes, two sources of each task: what is large goes alone, the others up to 300 together, in order.
    lengths = [[4 * sizes[int(name[1:])] for name, _ in transfer] for transfer in lane.transfers]
    assert lengths == [[400], [400], [20] * 6 + [160], [160, 120], [120], [400], [400], [20] * 4]


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
    assert len(lane.transfers) == 1
