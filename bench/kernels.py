"""Compiled kernels on one thread, inputs from memory, against what the memory gives in the same run.

`pymerge bench kernels` is its command line. A kernel that writes is compared to copying into a small
recycled buffer, one that only reads to reading; bytes are those of the spec's passes. What numpy and torch take for
the same stands beside it (against.py).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pymerge import _core

from . import records
from .against import add_times, choose_libraries, columns_of, time_against
from .checkpoints import DTYPES
from .kernel_cases import CASES, Call, Case, Inputs, prepare
from .memory import copy_rate, multiply_rate, read_rate
from .spread import Spread
from .table import Column, show_header, show_row

__all__ = ["KERNELS", "bench_kernels", "check_choice", "levels", "show"]

Record = dict[str, Any]

KERNELS = tuple(dict.fromkeys(case.kernel for case in CASES))
#: Bytes of an input, in last-level caches: all that a kernel reads is then several times the cache.
_CACHES = 4
_MOST = 512 << 20
#: Elements of a call whose time is all overhead, and how many of them are timed.
_TINY, _TINY_CALLS = 8, 200
#: Elements that one timing is of at least: short inputs are gone over several times.
_STEADY = 1 << 18
#: Targets are for this level.
_TARGET_LEVEL = "v4"

COLUMNS = (
    Column("kernel", -14, lambda record: record["kernel"]),
    Column("variant", -15, lambda record: record["variant"]),
    Column("dtype", -5, lambda record: record["dtype"]),
    Column("models", 6, lambda record: str(record["models"])),
    Column("isa", -7, lambda record: record["isa"]),
    Column("ns/element (best..worst)", 26, lambda record: Spread(**record["ns"]).show(3)),
    Column("GB/s", 6, lambda record: f"{record['rate'] / 1e9:.1f}"),
    Column("share", 6, lambda record: f"{record['share']:.2f}"),
    Column("of", -6, lambda record: record["yardstick"]),
    Column("GB/s", 6, lambda record: f"{record['yardstick_rate'] / 1e9:.1f}"),
    Column("target", 6, lambda record: f"{record['target']:.2f}" if record["target"] else "-"),
)
#: Where there are several sizes.
_ELEMENTS = Column("elements", 11, lambda record: f"{record['elements']:,}")
#: A device's calls wait for the host now and then; shares go by how long it was busy.
_BUSY = Column("busy ns", 7, lambda record: f"{record['busy_ns']:.4f}")
DEVICE_COLUMNS = (*COLUMNS[:6], _BUSY, *COLUMNS[6:])


def levels() -> list[str]:
    """The instruction-set levels that this machine has, best first."""
    return [name for name, supported in reversed(_core.isa_levels()) if supported]


def _check(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"no {what} is called {name!r}; there are: {', '.join(known)}")


def check_choice(
    kernels: Sequence[str], dtypes: Sequence[str], models: Sequence[int], sizes: Sequence[int], rounds: int
) -> None:
    """Refuse what cannot be timed.

    Raises:
        ValueError: a name or number that there is not; the message says which there are.
    """
    _check("kernel", kernels, KERNELS)
    _check("dtype", dtypes, DTYPES)
    if not models or min([rounds, *models, *sizes]) < 1:
        raise ValueError("models, sizes and rounds must be at least 1")


def bench_kernels(
    kernels: Sequence[str] = KERNELS,
    dtypes: Sequence[str] = ("bf16", "f16", "f32"),
    models: Sequence[int] = (2, 3),
    isa: Sequence[str] | None = None,
    sizes: Sequence[int] = (),
    rounds: int = 5,
    history: Path | None = None,
    against: Sequence[str] | None = (),
) -> Iterator[Record]:
    """Time kernels; a record for each kernel, variant, dtype, number of models and level.

    Args:
        isa: levels; None takes all that the machine has.
        sizes: elements of an input, one after the other; none makes each input four last-level caches.
        rounds: timed passes of each; one more comes first and is not counted.
        history: a file of JSON lines that gets the records.
        against: libraries that are timed at the same; None: numpy, and torch where it is.

    Raises:
        ValueError: a name or number that there is not; the message says which there are.
    """
    chosen = levels() if isa is None else list(isa)
    check_choice(kernels, dtypes, models, sizes, rounds)
    libraries = choose_libraries(against)
    _check("instruction-set level of this machine", chosen, levels())
    facts = {"bench": "kernels", "time": records.stamp(), "machine": records.machine()}
    cases = [case for case in CASES if case.kernel in kernels]
    before = _core.active_isa()
    try:
        for dtype in dtypes:
            itemsize = 4 if dtype == "f32" else 2
            for size in sizes or [min(_MOST, _CACHES * records.last_level_cache()) // itemsize]:
                inputs = Inputs(dtype, max(models), size)
                for record in _bench_inputs(cases, dtype, inputs, models, chosen, rounds, libraries):
                    if history is not None:
                        records.append(history, [facts | record])
                    yield facts | record
    finally:
        _core.force_isa(before)


def _bench_inputs(
    cases: Sequence[Case],
    dtype: str,
    inputs: Inputs,
    models: Sequence[int],
    isa: Sequence[str],
    rounds: int,
    libraries: Sequence[str],
) -> Iterator[Record]:
    elements = inputs.elements
    jobs = [(case, n, prepare(case, inputs, n)) for case in cases for n in case.models(models)]
    rivals = [time_against(case, inputs, n, libraries, rounds) for case, n, _ in jobs]
    repeats = max(1, _STEADY // elements)
    peak = multiply_rate()
    for level in isa:
        _core.force_isa(level)
        yardsticks: dict[str, list[float]] = {"memcpy": [], "read": []}
        times: list[list[float]] = [[] for _ in jobs]
        for _ in range(rounds + 1):
            yardsticks["memcpy"].append(copy_rate(inputs.raw * repeats, inputs.out))
            yardsticks["read"].append(read_rate(inputs.raw * repeats))
            for (_, _, calls), seconds in zip(jobs, times, strict=True):
                seconds.append(_time(calls * repeats) / repeats)
        for (case, n, calls), seconds, others in zip(jobs, times, rivals, strict=True):
            yardstick = "memcpy" if case.writes else "read"
            rate = statistics.median(yardsticks[yardstick][1:])
            moved = sum(case.bytes_per_element(n, inputs.itemsize))
            spread = Spread.of([value * 1e9 / elements for value in seconds[1:]])
            yield {
                "kernel": case.kernel,
                "variant": case.variant,
                "dtype": dtype,
                "models": n,
                "isa": level,
                "elements": elements,
                "rounds": rounds,
                "ns": spread.to_json(),
                "bytes_per_element": moved,
                "rate": moved / spread.median * 1e9,
                "yardstick": yardstick,
                "yardstick_rate": rate,
                "share": moved / spread.median * 1e9 / rate,
                "target": case.target(n) if level == _TARGET_LEVEL else None,
                "call_share": _call_seconds(case, inputs, n) * len(calls) / statistics.median(seconds[1:]),
                "writes": case.writes,
                "operations": case.count_operations(n),
                "peak_rate": peak,
                "against": add_times(others, spread.median),
            }


def _time(calls: Sequence[Call]) -> float:
    started = time.perf_counter()
    for call in calls:
        call()
    return time.perf_counter() - started


def _call_seconds(case: Case, inputs: Inputs, models: int) -> float:
    """What a call costs whatever its length: argument conversion and job set-up."""
    calls = prepare(case, inputs, models, min(_TINY, inputs.elements))
    return _time(calls * _TINY_CALLS) / _TINY_CALLS


def show(found: Iterable[Record], out: Callable[[str], None], sizes: int = 1) -> None:
    """Print records as a table while they come; `sizes`: how many each kernel is timed at."""
    columns: Sequence[Column] = COLUMNS
    missing: dict[str, None] = {}
    for at, record in enumerate(found):
        if not at:
            machine, device = record["machine"], record.get("device")
            where = f"{machine['processor']}, 1 thread"
            if device:
                where = ", ".join(f"{what} {which}" for what, which in device.items() if what != "name")
                where = f"{device['name']}, {where}"
                columns = DEVICE_COLUMNS
            columns = (*columns[:4], *((_ELEMENTS,) if sizes > 1 else ()), *columns[4:], *columns_of(record["against"]))
            out(f"{where}, pymerge {machine['pymerge']}" + (f", {record['elements']:,} elements" * (sizes == 1)))
            out(show_header(columns))
        out(show_row(columns, record))
        for library, other in record["against"].items():
            if "why_not" in other:
                missing[f"{library}, {record['kernel']} {record['variant']}: {other['why_not']}"] = None
    for line in missing:
        out(line)
