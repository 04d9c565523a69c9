"""select in Triton; see spec.py for the contract and search.py for the way."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from ...common.triton.launch import to_bytes
from ...common.triton.lines import line_numbers
from ..spec import sample_places
from .scores import Scores
from .search import Pair, find_cuts

__all__ = ["run", "run_counts", "run_counts_open", "run_lines", "run_sample", "run_spread"]


def _owned(tensors: Sequence[torch.Tensor]) -> tuple[tuple[torch.Tensor, ...], list[int]]:
    """Each tensor once, and which of them every given one is."""
    unique = {id(tensor): tensor for tensor in tensors}
    places = {name: place for place, name in enumerate(unique)}
    return tuple(unique.values()), [places[id(tensor)] for tensor in tensors]


def run(tensors: Sequence[torch.Tensor], base: torch.Tensor | None, counts: Sequence[int], compute: str) -> list[Pair]:
    """The contract: (bits, last) for each count."""
    unique, owners = _owned(tensors)
    return find_cuts(Scores(unique, base, compute), owners, counts)


def run_spread(tensors: Sequence[torch.Tensor], base: None, share: float, compute: str) -> list[Pair]:
    """The contract of spread; one cut."""
    return find_cuts(Scores(tuple(tensors), None, compute, "spread"), [0], [0], share)


def run_lines(
    tensors: Sequence[torch.Tensor],
    base: torch.Tensor | None,
    counts: Sequence[int],
    factors: Sequence[float],
    lines: tuple[int, int, bool],
    compute: str,
) -> list[Pair]:
    """The contract with a factor for each vector."""
    unique, owners = _owned(tensors)
    scales = line_numbers(factors, compute, tensors[0].device)
    return find_cuts(Scores(unique, base, compute, "lines", scales, lines), owners, counts)


def _counts(
    tensors: Sequence[torch.Tensor],
    base: torch.Tensor | None,
    lows: Sequence[int],
    shift: int,
    buckets: int,
    compute: str,
    *,
    beyond: bool,
) -> bytes:
    """The contract of counts, `beyond`: with an open last bucket: the bytes of integers of 64 bits."""
    unique, owners = _owned(tensors)
    starts = [min(low, (1 << 63) - 1) for low in lows]
    shifts = [shift] * len(owners)
    return to_bytes(Scores(unique, base, compute).counts(owners, starts, shifts, buckets + beyond, beyond))


run_counts = partial(_counts, beyond=False)
run_counts_open = partial(_counts, beyond=True)


def run_sample(tensors: Sequence[torch.Tensor], base: torch.Tensor | None, apart: int, compute: str) -> bytes:
    """The contract of samples: the bytes of [n, keys] integers of 64 bits."""
    places = torch.from_numpy(sample_places(tensors[0].numel(), apart)).to(tensors[0].device)
    sampled = tuple(tensor[places] for tensor in tensors)
    scores = Scores(sampled, None if base is None else base[places], compute)
    return to_bytes(scores.keys(0, scores.count).long())
