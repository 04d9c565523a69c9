"""The progress bar: bytes, speeds, time left, current tensor. Only where a person is watching."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pymerge.cli.quantities import format_bytes
from pymerge.errors import printable

if TYPE_CHECKING:
    from pymerge.execute.values import OnProgress, Progress

__all__ = ["describe", "show_progress"]

#: Columns that bar, percentage, time and gaps take.
_FURNITURE = 24


@contextmanager
def show_progress(*, visible: bool) -> Iterator[OnProgress | None]:
    """Yield what `merge` is to call; None where stderr is no terminal, or nobody asked."""
    if not visible or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        BarColumn(bar_width=8),
        TextColumn("{task.percentage:>3.0f} % {task.fields[speeds]}"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[tensor]}", markup=False),
    )
    console = Console(stderr=True)
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, speeds="", tensor="reading headers")

        def update(now: Progress) -> None:
            speeds = describe(now)
            tensor = shorten(printable(now.tensor).removesuffix(".weight"), console.width - len(speeds) - _FURNITURE)
            bar.update(
                task, completed=now.written + now.fetched, total=now.total + now.to_fetch, speeds=speeds, tensor=tensor
            )

        yield update


def describe(now: Progress) -> str:
    """Bytes done and the mean speeds so far."""
    seconds = max(now.seconds, 1e-3)
    fetched = f"fetched {format_bytes(now.fetched)} of {format_bytes(now.to_fetch)}, " if now.to_fetch else ""
    return (
        f"{fetched}{format_bytes(now.written)} of {format_bytes(now.total)}, "
        f"in {format_bytes(now.read / seconds)}/s, out {format_bytes(now.written / seconds)}/s"
    )


def shorten(name: str, width: int) -> str:
    """`name`, or as much of its end as fits; nothing where that would tell nothing."""
    if len(name) <= width:
        return name
    return f"…{name[len(name) - width + 1 :]}" if width >= 8 else ""
