"""Cuts of groups: the largest magnitudes of many tensors together, found before any of them is merged.

Every tensor of a group counts its keys by bucket in a bracket, the sums say which bucket holds the cut, and
that bucket is looked at closer. A sample says where the bracket should be; if it was wrong, the
bracket is all keys there are. Keys that tie at the cut are shared out in the plan's order; the one tensor
that gets only some of its own is asked for the cut that leaves as many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from pymerge.ops import KEEP_NONE, Cut, KeyCounts, KeySample, Measure, Select
from pymerge.plan.values import TensorTask

__all__ = ["GroupCuts", "Measures", "find_group_cuts"]

#: Runs measures on tasks, given by their numbers; yields each number with its answer, in any order.
Measures: TypeAlias = Callable[[Mapping[int, Measure]], Iterable[tuple[int, Any]]]
#: Number of a task -> the answer to its select.
GroupCuts: TypeAlias = dict[int, tuple[Cut, ...]]

_BUCKET_BITS = 16
#: Bits of a key that the last pass may tell apart, the one whose counts are kept for each tensor.
_LAST_BITS = 8
#: Runs of a sample; more if tensors are more. Their 262,144 keys have ranks with a standard error of 0.1 % if keys
#: are independent of their neighbors; they are not quite, so the bracket is seven of them to each side.
_RUNS = 4096
_LEAST_APART = 1 << 16
_STANDARD_ERRORS = 7


@dataclass(slots=True, eq=False)
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

    def narrow(self, counts: Any, shift: int) -> bool:
        """The bucket, of 2^shift keys, that holds the cut becomes the bracket; False if none of them does."""
        if not self.wanted:
            return True  # there is no cut, and above all keys is no place to look for one
        from_top = np.cumsum(counts[::-1]) + np.uint64(self.above)
        place = int(np.searchsorted(from_top, np.uint64(self.wanted)))
        if place == len(from_top) or self.above >= self.wanted:
            return False
        self.above = int(from_top[place - 1]) if place else self.above
        self.low += (len(counts) - 1 - place) << shift
        return True


#: For each select, its entries' columns.
_Columns: TypeAlias = Mapping[int, tuple[_Column, ...]]


def find_group_cuts(tasks: Sequence[TensorTask], selects: Mapping[int, Select], measure: Measures) -> GroupCuts:
    """Find the cuts of all groups.

    Args:
        tasks: the plan's.
        selects: what programs asked for, by the number of their task, in the order in which ties are shared out; of one
            precision (pymerge.plan.groups).
        measure: called for all tasks: for a sample and two passes (a few more in float64, or where the sample
            misleads); then for single ones.
    """
    columns = _make_columns(tasks, selects)
    bits = 63 if any(tasks[number].compute.name == "float64" for number in selects) else 31
    shift, buckets = _sample(tasks, selects, columns, bits, measure)
    if not _count(selects, columns, shift, buckets, measure, beyond=True):
        for column in _each(columns):
            column.low = column.above = 0
        shift = (bits - 1) // _BUCKET_BITS * _BUCKET_BITS
        _count(selects, columns, shift, 1 << (bits - shift), measure)
    while shift > _LAST_BITS:
        finer = max(0, shift - _BUCKET_BITS)
        _count(selects, columns, finer, 1 << (shift - finer), measure)
        shift = finer
    return _share_out(tasks, selects, columns, _count_ties(selects, columns, 1 << shift, measure), measure)


def _each(columns: _Columns) -> list[_Column]:
    return list({id(column): column for row in columns.values() for column in row}.values())


def _add_up(columns: _Columns, answers: Iterable[tuple[int, Any]]) -> dict[_Column, Any]:
    """The sums of key counts over every column's tensors."""
    totals: dict[_Column, Any] = {}
    for number, answer in answers:
        rows = np.asarray(answer, np.uint64).reshape(len(columns[number]), -1)
        for column, counts in zip(columns[number], rows, strict=True):
            totals[column] = totals[column] + counts if column in totals else counts
    return totals


def _sample(
    tasks: Sequence[TensorTask], selects: Mapping[int, Select], columns: _Columns, bits: int, measure: Measures
) -> tuple[int, int]:
    """Set every column's bracket to where a sample has its cut; return (shift, buckets) that cover them all."""
    parts: dict[_Column, list[tuple[Any, float]]] = {column: [] for column in _each(columns)}
    apart = max(_LEAST_APART, sum(tasks[number].count for number in selects) // _RUNS)
    for number, answer in measure({n: KeySample(select.sources, apart, select.base) for n, select in selects.items()}):
        rows = np.asarray(answer, np.uint64).reshape(len(columns[number]), -1)
        for column, keys in zip(columns[number], rows, strict=True):
            # Short tensors are sampled more closely: each key stands for as many as it should.
            parts[column].append((keys, tasks[number].count / max(1, len(keys))))
    width = 1
    for column, sampled in parts.items():
        keys = np.concatenate([keys for keys, _ in sampled])
        order = np.argsort(keys)[::-1]
        keys = keys[order]
        ranks = np.cumsum(np.concatenate([np.full(len(keys), weight) for keys, weight in sampled])[order])
        if not len(keys):
            continue
        reach = _STANDARD_ERRORS * 0.5 / math.sqrt(len(keys)) * ranks[-1]
        first, last = np.searchsorted(ranks, (column.wanted - reach, column.wanted + reach))
        column.low = int(keys[last]) if last < len(keys) else 0
        high = int(keys[first]) if first else (1 << bits) - 1
        width = max(width, high - column.low + 1)
    shift = max(0, (width - 1).bit_length() - _BUCKET_BITS)
    return shift, ((width - 1) >> shift) + 1


def _count(
    selects: Mapping[int, Select],
    columns: _Columns,
    shift: int,
    buckets: int,
    measure: Measures,
    *,
    beyond: bool = False,
) -> bool:
    """Narrow every column's bracket down to one of its buckets; `beyond`: what is above them is not known yet.

    Returns False, with brackets that mean nothing, if one did not hold its cut.
    """
    requests = {n: _counts(select, columns[n], shift, buckets, beyond) for n, select in selects.items()}
    for column, total in _add_up(columns, measure(requests)).items():
        column.above += int(total[buckets:].sum())
        if not column.narrow(total[:buckets], shift):
            return False
    return True


def _count_ties(
    selects: Mapping[int, Select], columns: _Columns, keys: int, measure: Measures
) -> dict[int, tuple[int, ...]]:
    """Narrow every column's bracket, of so many keys, down to its cut; return how many are at it, entry by entry."""
    lows = {column: column.low for column in _each(columns)}
    found = dict(measure({n: _counts(select, columns[n], 0, keys) for n, select in selects.items()}))
    for column, total in _add_up(columns, found.items()).items():
        column.narrow(total, 0)
    return {
        n: tuple(found[n][at * keys + column.low - lows[column]] for at, column in enumerate(row))
        for n, row in columns.items()
    }


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


def _counts(select: Select, columns: Sequence[_Column], shift: int, buckets: int, beyond: bool = False) -> KeyCounts:
    return KeyCounts(select.sources, tuple(column.low for column in columns), shift, buckets, select.base, beyond)


def _share_out(
    tasks: Sequence[TensorTask],
    selects: Mapping[int, Select],
    columns: _Columns,
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
