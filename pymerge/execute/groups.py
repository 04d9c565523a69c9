"""Cuts of groups: the largest magnitudes of many tensors together, found before any of them is merged.

A radix select: every tensor of a group counts its keys by bucket, the sums say which bucket holds the
cut, and that bucket is looked at closer. Keys that tie at the cut are shared out in the plan's order;
the one tensor that gets only some of its own is asked for the cut that leaves as many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from pymerge.ops import KEEP_NONE, Cut, KeyCounts, Measure, Select
from pymerge.plan.values import TensorTask

__all__ = ["GroupCuts", "Measures", "find_group_cuts"]

#: Runs measures on tasks, given by their numbers; yields each number with its answer, in any order.
Measures: TypeAlias = Callable[[Mapping[int, Measure]], Iterable[tuple[int, Any]]]
#: Number of a task -> the answer to its select.
GroupCuts: TypeAlias = dict[int, tuple[Cut, ...]]

_BUCKET_BITS = 16


@dataclass(slots=True)
class _Column:
    """One model's magnitudes throughout a group, and the bracket in which its cut lies.

    Attributes:
        wanted: how many of the largest are sought.
        low: the bracket's least key; at the end the cut's.
        above: keys above the bracket.
    """

    wanted: int = 0
    low: int = 0
    above: int = 0

    def narrow(self, counts: Any, shift: int) -> None:
        """Of the bracket's buckets of 2^shift keys, the one that holds the cut becomes the bracket."""
        from_top = np.cumsum(counts[::-1]) + np.uint64(self.above)
        place = int(np.searchsorted(from_top, np.uint64(self.wanted)))
        self.above = int(from_top[place - 1]) if place else self.above
        self.low += (len(counts) - 1 - place) << shift


def find_group_cuts(tasks: Sequence[TensorTask], selects: Mapping[int, Select], measure: Measures) -> GroupCuts:
    """Find the cuts of all groups.

    Args:
        tasks: the plan's.
        selects: what programs asked for, by the number of their task, in the order in which ties are shared out; of one
            precision (pymerge.plan.groups).
        measure: called three times for all tasks (five times in float64), then for single ones.
    """
    columns = _make_columns(tasks, selects)
    bits = 63 if any(tasks[number].compute.name == "float64" for number in selects) else 31
    for shift in reversed(range(0, bits, _BUCKET_BITS)):
        buckets = 1 << min(_BUCKET_BITS, bits - shift)
        totals = {id(column): (column, np.zeros(buckets, np.uint64)) for row in columns.values() for column in row}
        requests = {n: _counts(select, columns[n], shift, buckets) for n, select in selects.items()}
        for number, answer in measure(requests):
            for column, counts in zip(
                columns[number], np.frombuffer(answer, np.uint64).reshape(-1, buckets), strict=True
            ):
                totals[id(column)][1][:] += counts
        for column, total in totals.values():
            column.narrow(total, shift)
    ties = dict(measure({n: _counts(select, columns[n], 0, 1) for n, select in selects.items()}))
    return _share_out(tasks, selects, columns, ties, measure)


def _make_columns(tasks: Sequence[TensorTask], selects: Mapping[int, Select]) -> dict[int, tuple[_Column, ...]]:
    """For each select, its entries' columns: one per group, model and how often the select has listed that."""
    columns: dict[tuple[str, str, int], _Column] = {}
    rows = {}
    for number, select in selects.items():
        labels = [tasks[number].labels[source] for source in select.sources]
        row = []
        for entry, (label, count) in enumerate(zip(labels, select.counts, strict=True)):
            column = columns.setdefault((select.group, label, labels[:entry].count(label)), _Column())
            column.wanted += count
            row.append(column)
        rows[number] = tuple(row)
    return rows


def _counts(select: Select, columns: Sequence[_Column], shift: int, buckets: int) -> KeyCounts:
    return KeyCounts(select.sources, tuple(column.low for column in columns), shift, buckets, select.base)


def _share_out(
    tasks: Sequence[TensorTask],
    selects: Mapping[int, Select],
    columns: Mapping[int, tuple[_Column, ...]],
    ties: Mapping[int, Sequence[int]],
    measure: Measures,
) -> GroupCuts:
    """A cut for each entry; `ties` says how many of its keys are at its column's cut."""
    left = {id(column): column.wanted - column.above for row in columns.values() for column in row}
    cuts: GroupCuts = {}
    for number, select in selects.items():
        row = []
        for entry, column in enumerate(columns[number]):
            here = ties[number][entry]
            taken = min(here, left[id(column)])
            left[id(column)] -= taken
            if not column.wanted:
                row.append(KEEP_NONE.cut)
            elif taken in (0, here):
                row.append(Cut(column.low, tasks[number].count if taken else -1))
            else:
                source = (select.sources[entry],)
                whole = 63 if tasks[number].compute.name == "float64" else 31
                ((_, above),) = measure({number: KeyCounts(source, (column.low + 1,), whole, 1, select.base)})
                ((_, (cut,)),) = measure({number: Select(source, (above[0] + taken,), select.base)})
                row.append(cut)
        cuts[number] = tuple(row)
    return cuts
