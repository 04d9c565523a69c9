"""Records as lines of a table: columns are data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .spread import Spread

__all__ = ["MERGE_COLUMNS", "Column", "show_header", "show_row"]

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        width: characters; a negative one sets the cell to the left.
        show: a record's cell.
    """

    title: str
    width: int
    show: Callable[[Record], str]

    def pad(self, cell: str) -> str:
        """The cell, filled up to the width."""
        return cell.ljust(-self.width) if self.width < 0 else cell.rjust(self.width)


def show_header(columns: Sequence[Column]) -> str:
    """The line of titles."""
    return "  ".join(column.pad(column.title) for column in columns).rstrip()


def show_row(columns: Sequence[Column], record: Record) -> str:
    """The line of one record."""
    return "  ".join(column.pad(column.show(record)) for column in columns).rstrip()


def _spread(name: str) -> Callable[[Record], str]:
    return lambda record: Spread(**record[name]).show()


def _mebibytes(name: str) -> Callable[[Record], str]:
    return lambda record: f"{record[name] >> 20}M"


def _stages(record: Record) -> str:
    if "stages" not in record:
        return "-"
    total = sum(record["stages"].values())
    return "/".join(f"{100 * seconds / total:.0f}" for seconds in record["stages"].values())


def _reported(record: Record) -> str:
    return f"{record['read'] / 1e9:.1f}/{record['written'] / 1e9:.1f}" if "read" in record else "-"


def _disk(record: Record) -> str:
    return f"{record['disk_read'] / 1e9:.1f}/{record['disk_written'] / 1e9:.1f}"


def _cold(record: Record) -> str:
    """Wall time over that of reading the inputs alone, and of reading them while the output is written."""
    if not record["cold"]:
        return "-"
    return f"{record['read_ratio']['median']:.2f} {record['wall']['median'] / record['floor']['together']:.2f}"


MERGE_COLUMNS = (
    Column("method", -16, lambda record: record["method"]),
    Column("command", -10, lambda record: record["command"]),
    Column("wall s (best..worst)", 20, _spread("wall")),
    Column("cpu s", 6, lambda record: f"{record['cpu']:.2f}"),
    Column("anon", 6, _mebibytes("anonymous")),
    Column("file", 6, _mebibytes("file_backed")),
    Column("GB in/out", 9, _reported),
    Column("disk GB", 9, _disk),
    Column("start/plan/prep/merge/finish %", 30, _stages),
    Column("floor s best/median", 19, lambda r: f"{r['floor']['best']:.2f}/{r['floor']['median']:.2f}"),
    Column("wall/floor (best..worst)", 24, _spread("ratio")),
    Column("target", 6, lambda record: f"{record['target']:.2f}"),
    Column("/synced", 7, lambda record: f"{record['synced_ratio']['median']:.2f}"),
    Column("cold: /read /both", 17, _cold),
    Column("x ours", 6, lambda record: f"{record['times_ours']:.2f}"),
)
