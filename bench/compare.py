"""Two runs of a history against each other, with a verdict only beyond the noise of both.

`pymerge bench compare` is its command line. A run is all records of one time stamp. One of two runs is faster
beyond noise if each of its rounds is faster than each of the other's, which of five rounds that differ by chance
happens in 0.8 % of cases; from ten rounds on, where a single round that was disturbed should not count, if the
ranges from first to third quartile have nothing in common (3.6 % of ten, 0.2 % of twenty). Of fewer than four
rounds nothing is said: of three, one case in ten would be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import records
from .spread import Spread
from .table import Column, show_header, show_row

__all__ = ["compare_runs", "judge", "show"]

Record = Mapping[str, Any]
Run = Sequence[Record]

_FEWEST, _MANY = 4, 10


@dataclass(frozen=True, slots=True)
class _Kind:
    """Records of one bench.

    Attributes:
        names: the fields that tell one thing that was timed from another.
        unit: of the timings.
        timings: what was timed of a record, by name; the name of all of it is empty.
    """

    names: tuple[str, ...]
    unit: str
    timings: Callable[[Record], Mapping[str, Any]]


_KINDS = {
    "kernels": _Kind(("kernel", "variant", "dtype", "models", "isa"), "ns/element", lambda r: {"": r["ns"]}),
    "io": _Kind(("operation", "method", "cache", "bytes"), "ms", lambda r: {"": r["ms"]} if r["ms"] else {}),
    "recipe": _Kind(("recipe", "options", "cold"), "ms", lambda r: {"": r["ms"], **r["stages"]}),
    "merge": _Kind(("method", "command", "size", "layers", "dtype", "threads", "cold"), "s", lambda r: {"": r["wall"]}),
}

COLUMNS = (
    Column("what", -44, lambda row: row["name"]),
    Column("unit", -10, lambda row: row["unit"]),
    Column("before (best..worst)", 26, lambda row: Spread(**row["before"]).show(3)),
    Column("after (best..worst)", 26, lambda row: Spread(**row["after"]).show(3)),
    Column("ratio", 6, lambda row: f"{row['ratio']:.3f}"),
    Column("verdict", -14, lambda row: row["verdict"]),
)


def judge(before: Spread, after: Spread, rounds: int) -> str:
    """What may be said of two timings, the fewer of whose rounds are `rounds`: see above."""
    if rounds < _FEWEST:
        return "too few rounds"
    many = rounds >= _MANY
    (least, most), (low, high) = ((s.low, s.high) if many else (s.best, s.worst) for s in (before, after))
    return "faster" if high < least else "slower" if low > most else "within noise"


def compare_runs(history: Path, before: str = "-2", after: str = "-1") -> dict[str, Any]:
    """Compare two runs of a history.

    Args:
        history: a file of JSON lines, as `--history` makes them.
        before, after: runs, by number (1 is the oldest, -1 the latest) or by the beginning of their time stamp.

    Returns:
        `rows`: what both runs have; `only`: what one of them has; `machine`: facts of the machine that differ.

    Raises:
        ValueError: there is no such file or run, or none of its records is known.
    """
    runs = _read_runs(history)
    first, second = (_find_run(runs, text, history) for text in (before, after))
    left, right = (dict(_list_timings(run)) for run in (first, second))
    machines = [run[0]["machine"] for run in (first, second)]
    return {
        "before": first[0]["time"],
        "after": second[0]["time"],
        "machine": {
            key: [machine.get(key) for machine in machines]
            for key in sorted({*machines[0], *machines[1]})
            if machines[0].get(key) != machines[1].get(key)
        },
        "rows": [_compare(name, left[name], right[name]) for name in left if name in right],
        "only": [name for name in (*left, *right) if (name in left) != (name in right)],
    }


def _read_runs(history: Path) -> list[Run]:
    try:
        found = [record for record in records.read(history) if record.get("bench") in _KINDS]
    except OSError as error:
        raise ValueError(f"{history}: {error.strerror}") from None
    except (ValueError, AttributeError):
        raise ValueError(f"{history} is no file of JSON lines") from None
    runs: dict[str, list[Record]] = {}
    for record in found:
        runs.setdefault(record["time"], []).append(record)
    return list(runs.values())


def _find_run(runs: Sequence[Run], text: str, history: Path) -> Run:
    if text.lstrip("-").isdecimal() and len(text) < len("2000"):
        number = int(text)
        place = number - 1 if number > 0 else number
        if number and -len(runs) <= place < len(runs):
            return runs[place]
    found = [run for run in runs if run[0]["time"].startswith(text)]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(run[0]["time"] for run in runs) or "none"
    raise ValueError(f"{history} has {'several runs' if found else 'no run'} {text!r}; there are: {listed}")


def _list_timings(run: Run) -> Iterator[tuple[str, tuple[Record, str, Spread]]]:
    """(name, (record, unit, timing)) of everything that a run timed."""
    names = [_name(record) for record in run]
    for name, record in zip(names, run, strict=True):
        kind = _KINDS[record["bench"]]
        # Sizes tell apart what a run timed at several; runs of one size are compared whatever it is.
        size = f"{record['elements']:,}" if "elements" in record and names.count(name) > 1 else ""
        for part, timing in kind.timings(record).items():
            yield " ".join(filter(None, (name, size, part))), (record, kind.unit, Spread(**timing))


def _name(record: Record) -> str:
    return " ".join(filter(None, (_show_value(key, record.get(key)) for key in _KINDS[record["bench"]].names)))


def _show_value(key: str, value: Any) -> str:
    if value is True:
        return key
    return " ".join(value) if isinstance(value, list) else "" if value in (None, False) else str(value)


def _compare(name: str, before: tuple[Record, str, Spread], after: tuple[Record, str, Spread]) -> dict[str, Any]:
    (first, unit, left), (second, _, right) = before, after
    return {
        "name": name,
        "unit": unit,
        "before": left.to_json(),
        "after": right.to_json(),
        "ratio": right.median / left.median if left.median else 1.0,
        "verdict": judge(left, right, min(first["rounds"], second["rounds"])),
    }


def show(found: Mapping[str, Any], out: Callable[[str], None]) -> None:
    """Print a comparison as a table."""
    out(f"{found['before']} and {found['after']}")
    for key, (first, second) in found["machine"].items():
        out(f"other machine: {key} was {first}, is {second}")
    out(show_header(COLUMNS))
    for row in found["rows"]:
        out(show_row(COLUMNS, row))
    for name in found["only"]:
        out(f"in one of them only: {name}")
