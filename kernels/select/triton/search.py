"""Which keys are the k-th largest: rules of thumb and bookkeeping on the host, passes on the device.

Keys of a small tensor are sorted. Of others a sample brackets each rank; one pass over the data, for all tensors
and counts, counts what is above the brackets and at their ends, and gathers what is between. The cut is an end,
where the keys are few different ones, or one of the gathered. Where a bracket missed its rank, or holds more than
there is room for, histograms narrow it to fewer, or to one key. So no buffer is the size of a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch

from ..spec import EMPTY
from .passes import BUCKETS
from .scores import Scan, Scores

__all__ = ["Pair", "find_cuts"]

#: A cut: bits, last.
Pair: TypeAlias = tuple[int, int]

#: Elements up to which a tensor's keys are all sorted.
_SORTED = 1 << 18
#: Sample: one key of 256, between these bounds (multiples of every run). Its standard error of a rank is at most
#: half of 1 / sqrt(its size); brackets are four of them wide to either side.
_SAMPLED, _LEAST, _MOST = 256, 1 << 14, 1 << 20
_ERRORS = 2.0
_BITS = BUCKETS.bit_length() - 1


@dataclass(frozen=True, slots=True)
class _Entry:
    """A cut that is looked for: the key of rank `wanted` is in [low, high]."""

    place: int  # among the cuts
    owner: int
    wanted: int
    low: int = 0
    high: int = 0
    reach: int = 0  # keys that are not below `low`
    inside: int = 0  # of them, those not above `high`


def _sorted_cuts(scores: Scores, owners: Sequence[int], wanted: Sequence[int], share: float | None) -> list[Pair]:
    keys = scores.keys(0, scores.count)
    if share is not None:
        wanted = [int(share * int(keys.count_nonzero()))]
    places = [(owner, max(0, count - 1)) for owner, count in zip(owners, wanted, strict=True)]
    ordered, order = keys.sort(dim=1, descending=True, stable=True)
    at = scores.numbers(*(number for place in places for number in place)).view(-1, 2).T
    bits, last = ordered[at[0], at[1]].long(), order[at[0], at[1]]
    cuts = torch.stack([bits, last], 1).tolist()
    return [EMPTY if count == 0 else tuple(cut) for cut, count in zip(cuts, wanted, strict=True)]


def _brackets(
    scores: Scores, owners: Sequence[int], wanted: Sequence[int], share: float | None
) -> tuple[torch.Tensor, int]:
    """[entries, 2]: keys between which the wanted ones probably are; and how many to gather at most."""
    count = scores.count
    size = min(max(count // _SAMPLED, _LEAST), _MOST) // 32 * 32
    error = _ERRORS / math.sqrt(size)
    ordered = scores.sample(size).sort(dim=1).values
    shares = [number / count for number in wanted]
    if share is not None:
        shares = [share * int(ordered.count_nonzero()) / size]
    rows = []
    for owner, at in zip(owners, shares, strict=True):
        # From the least on; -1: no bound.
        low = size - 1 - min(size - 1, int((at + error) * size)) if at < 1 - error else -1
        high = size - 1 - int((at - error) * size) if at > error else -1
        rows += [owner, low, high]
    table = scores.numbers(*rows).view(-1, 3)
    at = table[:, 1:]
    open_ends = scores.numbers(0, torch.iinfo(scores.key).max)
    found = torch.where(at < 0, open_ends, ordered[table[:, :1], at.clamp(min=0)].long())
    return found.contiguous(), 3 * int(error * count) + (1 << 14)


def _choose(scores: Scores, scan: Scan, gathered: Sequence[tuple[int, _Entry, int, int]], cuts: list[Pair]) -> None:
    """The cuts among gathered keys: of a scan's entry (its index first) that of a rank, in segments so full at most."""
    keys, places, found = [], [], []
    for i, entry, rank, most in gathered:
        valid = torch.arange(most, device=scan.slots.device) < scan.slots[i, :, None]
        places.append(torch.where(valid, scan.places[i, :, :most], -1).flatten())
        keys.append(scores.only(entry.owner).keys_at(places[-1]))
        key = keys[-1].sort(descending=True).values[rank - 1]
        found.append(torch.stack([key.long(), (keys[-1] > key).sum()]))
    for (_, entry, rank, _), some, at, cut in zip(gathered, keys, places, found, strict=True):
        key, before = cut.tolist()
        cuts[entry.place] = (key, int(at[some == key].sort().values[rank - before - 1]))


def _last_tie(scores: Scores, scan: Scan, ties: torch.Tensor, key: int, rank: int) -> int:
    """The place of the rank-th element of this key; `ties`: of each program."""
    sums = ties.cumsum(0, dtype=torch.int64)
    at = torch.searchsorted(sums, rank)
    program, before = torch.stack([at, sums[at] - ties[at]]).tolist()
    begin = program * scan.width
    keys = scores.keys(begin, min(scan.width, scores.count - begin))[0]
    place: int = begin + int((keys == key).nonzero()[rank - before - 1])
    return place


def _narrow(scores: Scores, entries: Sequence[_Entry], room: int) -> list[_Entry]:
    """Brackets of one key, or of no more than there is room for."""
    done = [entry for entry in entries if entry.inside <= room or entry.low == entry.high]
    left = [entry for entry in entries if entry not in done]
    while left:
        shifts = [max(0, (entry.high - entry.low).bit_length() - _BITS) for entry in left]
        counts = scores.counts([entry.owner for entry in left], [entry.low for entry in left], shifts, BUCKETS).tolist()
        for entry, shift, row in zip(list(left), shifts, counts, strict=True):
            reach, bucket = entry.reach, 0
            while reach - row[bucket] >= entry.wanted:
                reach -= row[bucket]
                bucket += 1
            low = entry.low + (bucket << shift)
            high = min(low + (1 << shift) - 1, torch.iinfo(scores.key).max)
            narrower = replace(entry, low=low, high=high, reach=reach, inside=row[bucket])
            left.remove(entry)
            (done if narrower.inside <= room or shift == 0 else left).append(narrower)
    return done


def _look(
    scores: Scores, entries: Sequence[_Entry], scan: Scan, brackets: torch.Tensor, share: float | None, cuts: list[Pair]
) -> list[_Entry]:
    """The cuts that a scan of the entries' brackets settles; the other entries, with where their keys are instead."""
    greatest = torch.iinfo(scores.key).max
    missed, gathered = [], []
    rows = torch.cat([scan.totals(), brackets], 1).tolist()
    for i, (entry, (above, tops, bottoms, apart, *slots, low, high)) in enumerate(zip(entries, rows, strict=True)):
        between = sum(slots)
        reach = above + tops + between + bottoms
        wanted = entry.wanted if share is None else int(share * apart)
        rank = wanted - above
        only = scores.only(entry.owner)
        entry = replace(entry, wanted=wanted)
        if wanted == 0:
            continue
        if rank <= 0:
            missed.append(replace(entry, low=high + 1, high=greatest, reach=above, inside=above))
        elif rank <= tops:
            cuts[entry.place] = (high, _last_tie(only, scan, scan.ties(i, high=True), high, rank))
        elif rank <= tops + between and max(slots) <= scan.places.shape[2]:
            gathered.append((i, entry, rank - tops, max(slots)))
        elif rank <= tops + between:
            missed.append(replace(entry, low=low + 1, high=high - 1, reach=reach - bottoms, inside=between))
        elif rank <= tops + between + bottoms:
            rank -= tops + between
            cuts[entry.place] = (low, _last_tie(only, scan, scan.ties(i, high=False), low, rank))
        else:
            missed.append(replace(entry, high=low - 1, reach=scores.count, inside=scores.count - reach))
    _choose(scores, scan, gathered, cuts)
    return missed


def _searched_cuts(scores: Scores, owners: Sequence[int], wanted: Sequence[int], share: float | None) -> list[Pair]:
    cuts: list[Pair] = [EMPTY] * len(owners)
    entries = [_Entry(place, owner, number) for place, (owner, number) in enumerate(zip(owners, wanted, strict=True))]
    brackets, room = _brackets(scores, owners, wanted, share)
    missed = _look(scores, entries, scores.scan(owners, brackets, room), brackets, share, cuts)
    if missed:
        left = _narrow(scores, missed, room)
        brackets = scores.numbers(*(end for entry in left for end in (entry.low, entry.high))).view(-1, 2)
        most = max(entry.inside if entry.low < entry.high else 1 for entry in left)
        scan = scores.scan([entry.owner for entry in left], brackets, most, apart=False)
        _look(scores, left, scan, brackets, None, cuts)
    return cuts


def find_cuts(scores: Scores, owners: Sequence[int], wanted: Sequence[int], share: float | None = None) -> list[Pair]:
    """For each entry the cut of the `wanted` largest keys of the kind `owners` says; of spread by `share` instead."""
    cuts: list[Pair] = [EMPTY] * len(owners)
    some = [i for i, number in enumerate(wanted) if number > 0 or share is not None]
    if some and scores.count > 0:
        find = _sorted_cuts if scores.count <= _SORTED else _searched_cuts
        found = find(scores, [owners[i] for i in some], [wanted[i] for i in some], share)
        for i, cut in zip(some, found, strict=True):
            cuts[i] = cut
    return cuts
