"""The streaming engine by itself: order, scarcity and failure."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from execute.merges import wait_for

from pymerge import _core
from pymerge.errors import DTypeError, ResourceError

SCARCE = {"threads": 1, "block": 4096, "buffers": 1, "writers": 1}
AMPLE = {"threads": 7, "block": 4096, "buffers": 20, "writers": 3}


def start(**settings: Any) -> _core.Engine:
    return _core.Engine(**{"direct": True, "stop_on_nonfinite": True, **settings})


def open_shard(engine: _core.Engine, folder: Path, name: str, sizes: list[int]) -> int:
    """Open a file of segments of these sizes."""
    offsets = [sum(sizes[:at]) for at in range(len(sizes))]
    path = str(folder / name)
    return engine.open_shard(f"{path}.partial", path, list(zip(offsets, sizes, strict=True)))


def tensor(folder: Path, values: np.ndarray, code: str) -> _core.Tensor:
    """A tensor in a mapped file of its own."""
    path = folder / f"input{len(list(folder.iterdir()))}"
    values.tofile(path)
    return _core.Tensor.from_file(_core.MappedFile(str(path)), 0, values.size, code)


@pytest.mark.parametrize("settings", [SCARCE, AMPLE], ids=["scarce", "ample"])
def test_segments_may_be_filled_in_any_order(tmp_path: Path, settings: dict[str, int]) -> None:
    order = random.Random(1)
    engine = start(**settings)
    content: dict[str, bytes] = {}
    fills = []
    for shard in range(5):
        parts = [order.randbytes(order.choice([0, 1, 100, 4096, 9000])) for _ in range(30)]
        assert open_shard(engine, tmp_path, str(shard), [len(part) for part in parts]) == shard
        content[str(shard)] = b"".join(parts)
        fills += [(shard, at, part) for at, part in enumerate(parts)]
    order.shuffle(fills)
    for shard, at, part in fills:
        engine.fill_bytes(shard, at, part)
    wait_for(engine, shards=5)
    engine.stop()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == content


def test_an_empty_segment_may_come_after_its_file_is_finished(tmp_path: Path) -> None:
    engine = start(**SCARCE)
    for shard in range(50):
        open_shard(engine, tmp_path, str(shard), [4096, 0, 0])
        engine.fill_bytes(shard, 0, b"x" * 4096)
        wait_for(engine, shards=shard + 1)
        engine.fill_bytes(shard, 1, b"")
        engine.fill_bytes(shard, 2, b"")
    engine.stop()
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"x" * 4096}


@pytest.mark.parametrize("settings", [SCARCE, AMPLE], ids=["scarce", "ample"])
def test_a_thousand_measures_are_all_answered(tmp_path: Path, settings: dict[str, int]) -> None:
    engine = start(**settings)
    one = tensor(tmp_path, np.full(1000, 0.5, np.float32), "F32")
    big = tensor(tmp_path, np.arange(600_000, dtype=np.float32), "F32")
    for ticket in range(1000):
        if ticket % 100:
            engine.measure_gram(ticket, [one], None, "float32")
        else:
            engine.measure_select(ticket, [big], None, "float32", [600])
    answers: dict[int, Any] = {}
    while len(answers) < 1000:
        answers.update(engine.wait(1.0))
    engine.stop()
    # The 600th largest of 0, 1, ..., 599999, as bits and flat index.
    cut = (int(np.float32(599_400).view(np.uint32)), 599_400)
    assert {ticket: answer for ticket, answer in answers.items() if ticket % 100} == {
        ticket: [(250.0,)] for ticket in range(1000) if ticket % 100
    }
    assert [answers[ticket] for ticket in range(0, 1000, 100)] == [[cut]] * 10


@pytest.mark.parametrize("settings", [SCARCE, AMPLE], ids=["scarce", "ample"])
def test_an_error_in_a_worker_reaches_the_caller_and_stays(tmp_path: Path, settings: dict[str, int]) -> None:
    engine = start(**settings)
    left, right = np.arange(40_000), np.arange(40_000)
    right[30_000] = 0
    open_shard(engine, tmp_path, "out", [left.nbytes])
    engine.fill_agreed(0, 0, [tensor(tmp_path, left, "I64"), tensor(tmp_path, right, "I64")], "ids")
    for _ in range(2):
        with pytest.raises(DTypeError, match='tensor "ids": element 30000 differs'):
            wait_for(engine, shards=1)
    engine.stop()
    assert not (tmp_path / "out").exists()


def test_a_writer_that_fails_ends_the_run(tmp_path: Path) -> None:
    engine = start(**SCARCE)
    (tmp_path / "taken").mkdir()
    open_shard(engine, tmp_path, "taken", [10])
    engine.fill_bytes(0, 0, bytes(10))
    with pytest.raises(ResourceError, match=r"taken\.partial: cannot rename to .*taken: "):
        wait_for(engine, shards=1)
    engine.stop()


def test_stopping_with_work_left_returns(tmp_path: Path) -> None:
    engine = start(**AMPLE)
    big = tensor(tmp_path, np.ones(3_000_000, np.float32), "F32")
    for ticket in range(50):
        engine.measure_gram(ticket, [big, big], None, "float32")
    open_shard(engine, tmp_path, "out", [3_000_000 * 4, 5])
    engine.fill_combine(0, 0, engine.combine_weighted_sum([big], None, "float32", "F32", [2.0]))
    engine.stop()
    engine.stop()
    assert not (tmp_path / "out").exists()


def test_more_threads_than_the_system_gives_are_an_error() -> None:
    # In a process with room for a few dozen stacks.
    code = (
        "import resource; from pymerge import _core; from pymerge.errors import ResourceError\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
        "try: _core.Engine(5000, 4096, 1, 1, True, True)\n"
        "except ResourceError as error: print(error)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert answer == "the system cannot start 5000 threads; give a smaller number with --threads\n"


class Elsewhere:
    """float32 values that are not the engine's; what was read once is gone afterwards."""

    def __init__(self, values: np.ndarray, error: Exception | None = None) -> None:
        self._bytes = values.astype(np.float32).view(np.uint8).copy()
        self._error = error
        self.times = np.zeros(self._bytes.size, np.int64)
        self.calls = 0

    def read(self, begin: int, out: memoryview, once: bool) -> None:
        if self._error:
            raise self._error
        there = slice(begin, begin + len(out))
        out[:] = self._bytes[there].tobytes()
        if once:
            self.calls += 1
            self.times[there] += 1
            self._bytes[there] = 0


@pytest.mark.parametrize("settings", [SCARCE, AMPLE], ids=["scarce", "ample"])
def test_what_is_made_elsewhere_is_read_once_and_by_blocks(tmp_path: Path, settings: dict[str, int]) -> None:
    order = np.random.default_rng(2)
    values = [order.normal(size=size).astype(np.float32) for size in (1, 3000, 0, 7, 1024, 5000)]
    made = [Elsewhere(each) for each in values]
    engine = start(**settings)
    open_shard(engine, tmp_path, "out", [each.nbytes for each in values])
    for at in order.permutation(len(made)):
        engine.fill_made(0, at, made[at], "F32")
    wait_for(engine, shards=1)
    engine.stop()
    assert (tmp_path / "out").read_bytes() == b"".join(each.tobytes() for each in values)
    assert all((each.times == 1).all() for each in made)
    assert [each.calls for each in made] == [1, 3, 0, 1, 2, 6]


def test_what_a_read_elsewhere_raises_reaches_the_caller_and_stays(tmp_path: Path) -> None:
    engine = start(**AMPLE)
    open_shard(engine, tmp_path, "out", [400_000])
    engine.fill_made(0, 0, Elsewhere(np.ones(100_000), ZeroDivisionError("the device is gone")), "F32")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="the device is gone"):
            wait_for(engine, shards=1)
    engine.stop()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("bad", "first"), [([10, 2000], 10), ([1500, 2500], 1500), ([2500], 2500), ([], -1)])
def test_the_first_nonfinite_value_made_elsewhere(tmp_path: Path, bad: list[int], first: int) -> None:
    # The first block is never filled: it shares its bytes with a segment that is not there.
    engine = start(**AMPLE)
    open_shard(engine, tmp_path, "out", [4, 4 * 3000])
    values = np.ones(3000, np.float32)
    values[bad] = np.nan
    made = Elsewhere(values)
    engine.fill_made(0, 1, made, "F32")
    deadline = time.monotonic() + 20
    while made.times.sum() < 4 * 3000 - 4092 and not engine.take_nonfinite():
        assert time.monotonic() < deadline
        engine.wait(0.01)
    assert engine.locate_nonfinite(0, 1) == first
    engine.stop()
