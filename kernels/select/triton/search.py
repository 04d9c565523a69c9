"""Which keys are the k-th largest: rules of thumb and bookkeeping on the host, passes on the device.

Keys of a small tensor are sorted. Of others a sample brackets each rank; one pass over the data, for all tensors
and counts, counts what is above the brackets and gathers what is inside; the cut is one of those. Where a bracket
missed its rank, or holds more than there is room for, histograms narrow it to fewer, or to one key, whose last
tie is found by counting. So no buffer is the size of a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch

from ...common.triton.launch import shape_of
from ..spec import EMPTY
from .passes import BUCKETS
from .scores import Scores

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
    low: int
    high: int
    reach: int  # keys that are not below `low`
    inside: int  # of them, those not above `high`

    @property
    def rank(self) -> int:
        """Among those inside."""
        return self.wanted - (self.reach - self.inside)


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


def _choose(keys: torch.Tensor, places: torch.Tensor, rank: int) -> torch.Tensor:
    """[2]: the key of this rank among all gathered ones, and the place where its equals end."""
    key = keys.sort(descending=True).values[rank - 1]
    ties = torch.where(keys == key, places, torch.iinfo(places.dtype).max).sort().values
    last = ties[(rank - 1 - (keys > key).sum()).view(1)]
    return torch.cat([key.view(1).long(), last.long()])


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


def _last_tie(scores: Scores, key: int, rank: int) -> int:
    """The place of the rank-th element of this key."""
    width = shape_of("scan", scores.count).width
    counts = scores.count_of(key, width)
    sums = counts.cumsum(0, dtype=torch.int64)
    program = int(torch.searchsorted(sums, rank))
    before = int(sums[program]) - int(counts[program])
    begin = program * width
    keys = scores.keys(begin, min(width, scores.count - begin))[0]
    return begin + int((keys == key).nonzero()[rank - before - 1])


def _settle(scores: Scores, missed: Sequence[_Entry], room: int, cuts: list[Pair]) -> None:
    """The cuts of entries whose first bracket was of no use."""
    entries = _narrow(scores, missed, room)
    few = [entry for entry in entries if entry.inside <= room]
    if few:
        brackets = scores.numbers(*(end for entry in few for end in (entry.low, entry.high)))
        _, keys, places = scores.scan([entry.owner for entry in few], brackets, max(e.inside for e in few))
        chosen = [_choose(keys[i, : e.inside], places[i, : e.inside], e.rank) for i, e in enumerate(few)]
        for entry, cut in zip(few, torch.stack(chosen).tolist(), strict=True):
            cuts[entry.place] = tuple(cut)
    for entry in entries:
        if entry not in few:
            cuts[entry.place] = (entry.low, _last_tie(scores.only(entry.owner), entry.low, entry.rank))


def _searched_cuts(scores: Scores, owners: Sequence[int], wanted: Sequence[int], share: float | None) -> list[Pair]:
    count = scores.count
    brackets, room = _brackets(scores, owners, wanted, share)
    counters, keys, places = scores.scan(owners, brackets, room)
    cuts: list[Pair] = [EMPTY] * len(owners)
    chosen, missed = {}, []
    for i, (found, above, apart, low, high) in enumerate(torch.cat([counters, brackets], 1).tolist()):
        number = wanted[i] if share is None else int(share * apart)
        rank = number - above
        entry = _Entry(i, owners[i], number, low, high, above + found, found)
        if number == 0:
            continue
        if rank <= 0:
            greatest = torch.iinfo(scores.key).max
            missed.append(replace(entry, low=high + 1, high=greatest, reach=above, inside=above))
        elif rank > found:
            missed.append(replace(entry, low=0, high=low - 1, reach=count, inside=count - above - found))
        elif found > room:
            missed.append(entry)
        else:
            chosen[i] = _choose(keys[i, :found], places[i, :found], rank)
    if chosen:
        for i, cut in zip(chosen, torch.stack([*chosen.values()]).tolist(), strict=True):
            cuts[i] = tuple(cut)
    if missed:
        _settle(scores, missed, room, cuts)
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
