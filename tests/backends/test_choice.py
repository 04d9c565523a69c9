"""What `auto` takes: a rule on numbers that never gets worse for what gets better."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pymerge.backends.choice import (
    MARGIN,
    DeviceFigures,
    Work,
    choose,
    expect_cpu,
    expect_device,
    say_seconds,
)

#: On a busy machine the first example of all may take a while.
EASY = settings(deadline=None)
sizes = st.integers(0, 1 << 42)
costs = st.floats(1e-12, 1e-7)
rates = st.floats(1e8, 1e13)
seconds = st.floats(0, 1e6)
works = st.builds(
    Work,
    loaded=sizes,
    read=sizes,
    written=sizes,
    compute_seconds=seconds,
    read_cost=costs,
    write_cost=costs,
    threads=st.integers(1, 256),
)
figures = st.builds(DeviceFigures, into=rates, out=rates, copy=rates, start=seconds)
more = st.floats(1, 100)


@EASY
@given(work=works, device=figures, name=st.sampled_from(["loaded", "read", "written"]), factor=more)
def test_more_bytes_never_take_less_time(work: Work, device: DeviceFigures, name: str, factor: float) -> None:
    larger = replace(work, **{name: int(getattr(work, name) * factor)})
    assert expect_cpu(larger) >= expect_cpu(work)
    assert expect_device(larger, [device]) >= expect_device(work, [device])


@EASY
@given(work=works, device=figures, name=st.sampled_from(["into", "out", "copy"]), factor=more)
def test_a_faster_device_never_takes_longer(work: Work, device: DeviceFigures, name: str, factor: float) -> None:
    faster = replace(device, **{name: getattr(device, name) * factor})
    assert expect_device(work, [faster]) <= expect_device(work, [device])


@EASY
@given(work=works, device=figures)
def test_a_second_device_never_makes_it_longer(work: Work, device: DeviceFigures) -> None:
    assert expect_device(work, [device, device]) <= expect_device(work, [device])


@EASY
@given(work=works, factor=st.integers(2, 8))
def test_more_threads_never_make_it_longer(work: Work, factor: int) -> None:
    assert expect_cpu(replace(work, threads=work.threads * factor)) <= expect_cpu(work)


@EASY
@given(cpu=seconds, device=seconds)
def test_a_device_is_taken_only_where_it_is_faster_beyond_doubt(cpu: float, device: float) -> None:
    taken = choose(cpu, device, "cuda").backend
    assert taken == ("cuda" if device * MARGIN < cpu else "cpu")


@EASY
@given(time=seconds)
def test_equal_times_go_to_the_processors(time: float) -> None:
    assert choose(time, time, "cuda").backend == "cpu"


@EASY
@given(work=works, device=figures, name=st.sampled_from(["into", "out", "copy"]), factor=more)
def test_no_rate_that_grows_takes_a_merge_from_the_device(
    work: Work, device: DeviceFigures, name: str, factor: float
) -> None:
    cpu = expect_cpu(work)
    before = choose(cpu, expect_device(work, [device]), "cuda").backend
    faster = replace(device, **{name: getattr(device, name) * factor})
    assert choose(cpu, expect_device(work, [faster]), "cuda").backend in ("cuda", before)


#: An H100 on a fast bus, as docs/performance.md has it: seven seconds to start, copies within it of 3 TB/s.
FAST = DeviceFigures(into=50e9, out=50e9, copy=3e12, start=6.6, memory=80e9)
GIVEN = Work(0, 0, 0, 0.0, read_cost=0.16e-9, write_cost=0.45e-9, threads=2)


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        # Two 70B-shaped models of four layers by linear, 16 processors: 4.7 s there, 5.4 s and the start by CUDA.
        (replace(GIVEN, loaded=16 << 30, read=16 << 30, written=8 << 30, compute_seconds=1.2, threads=16), "cpu"),
        # DELLA of 8B models on two slow lanes, 9 ns an element.
        (replace(GIVEN, loaded=48 << 30, read=96 << 30, written=16 << 30, compute_seconds=72.0), "cuda"),
        # The same of models that are copied more than computed.
        (replace(GIVEN, loaded=48 << 30, read=48 << 30, written=16 << 30, compute_seconds=3.0), "cpu"),
    ],
)
def test_merges_as_they_are(work: Work, expected: str) -> None:
    assert choose(expect_cpu(work), expect_device(work, [FAST]), "cuda").backend == expected


def test_the_reason_names_both_times_in_one_line() -> None:
    assert choose(12.3, 300.0, "triton").reason == "about 12 s expected of the processors, about 5 min of triton"
    assert choose(12.0, 11.0, "cuda").reason.endswith("about 11 s of cuda, which is too close to tell")


@pytest.mark.parametrize(
    ("given_seconds", "said"),
    [(0.3, "under 1 s"), (1.26, "about 1.3 s"), (99.4, "about 99 s"), (150.0, "about 2.5 min"), (7300.0, "about 2 h")],
)
def test_seconds_are_said_with_no_more_digits_than_they_have(given_seconds: float, said: str) -> None:
    assert say_seconds(given_seconds) == said
