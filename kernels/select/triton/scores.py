"""What select orders: keys of tensors on a device, and the launches that read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...common.triton.launch import INTERPRETED, cdiv, launch, pack_numbers, real_of, shape_of
from .passes import BUCKETS, PADDING, count_keys, pick_keys, scan_keys, write_keys

__all__ = ["Scan", "Scores"]

#: Elements that are sampled next to each other: of a line, so few that every line has some.
_RUN, _LINE_RUN = 32, 4
#: Tensors' pieces that a program of a scan goes through, one after the other: what it counts is added up once.
_STEPS = 1 if INTERPRETED else 4
#: Counters for what is gathered: who adds to the same one waits.
_SEGMENTS = 64


@dataclass(frozen=True, slots=True)
class Scan:
    """What lies above, at the ends of, and between brackets.

    Attributes:
        width: elements of a program.
        tallies: [2 entries (+ 1), programs] int32, as `scan_keys` states.
        slots: [entries, segments] int32, keys between, gathered or not.
        places: [entries, segments, room] where they are, the first `slots` of each.
    """

    width: int
    tallies: torch.Tensor
    slots: torch.Tensor
    places: torch.Tensor

    def ties(self, entry: int, *, high: bool) -> torch.Tensor:
        """[programs] int32: keys at an end of the bracket."""
        return self.tallies[2 * entry] >> 16 & 0xFFFF if high else self.tallies[2 * entry + 1]

    def totals(self) -> torch.Tensor:
        """[entries, 4 + segments]: keys above, at the high and the low end; elements that differ; slots."""
        entries = len(self.slots)
        upper, lower = self.tallies[: 2 * entries : 2], self.tallies[1 : 2 * entries : 2]
        differ = self.tallies[-1:].sum(1).expand(entries)
        sums = [(upper & 0xFFFF).sum(1), (upper >> 16 & 0xFFFF).sum(1), lower.sum(1), differ]
        return torch.cat([torch.stack(sums, 1), self.slots], 1)


@dataclass(frozen=True, slots=True)
class Scores:
    """What is ordered: every tensor's elements ("delta", "lines") or how far all are apart ("spread")."""

    tensors: tuple[torch.Tensor, ...]
    base: torch.Tensor | None
    compute: str
    how: str = "delta"
    factors: torch.Tensor | None = None
    lines: tuple[int, int, bool] = (1, 1, False)

    @property
    def count(self) -> int:
        return int(self.tensors[0].numel())

    @property
    def kinds(self) -> int:
        return 1 if self.how == "spread" else len(self.tensors)

    @property
    def key(self) -> torch.dtype:
        return torch.int64 if self.compute == "float64" else torch.int32

    def only(self, kind: int) -> Scores:
        return self if self.how == "spread" else replace(self, tensors=(self.tensors[kind],))

    def empty(self, *size: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.empty(size, dtype=dtype, device=self.tensors[0].device)

    def zeros(self, *size: int) -> torch.Tensor:
        return torch.zeros(size, dtype=torch.int64, device=self.tensors[0].device)

    def numbers(self, *values: int) -> torch.Tensor:
        return pack_numbers(self.tensors[0].device, values)

    def launch(
        self,
        kernel: Any,
        size: int,
        outs: Sequence[torch.Tensor],
        numbers: torch.Tensor,
        *extra: int,
        steps: int = 1,
        kind: str = "scan",
        **constants: Any,
    ) -> None:
        """Run a kernel of this file on `size` elements, a program on `steps` times its width."""
        shape = shape_of(kind, size)
        lines, length, strided = self.lines
        launch(
            kernel,
            cdiv(size, shape.width * steps),
            *outs,
            self.tensors,
            self.tensors[0] if self.base is None else self.base,
            numbers if self.factors is None else self.factors,
            numbers,
            size,
            lines,
            length,
            *extra,
            HOW=self.how,
            STRIDED=strided,
            HAS_BASE=self.base is not None,
            MODELS=len(self.tensors),
            KINDS=self.kinds,
            WIDTH=shape.width,
            REAL=real_of(self.compute),
            warps=shape.warps,
            **constants,
        )

    def keys(self, begin: int, size: int) -> torch.Tensor:
        """[kinds, size]: the keys of a range."""
        out = self.empty(self.kinds, size, dtype=self.key)
        self.launch(write_keys, size, (out,), self.numbers(begin, _RUN, 0), RUN=_RUN)
        return out

    def sample(self, size: int) -> torch.Tensor:
        """[kinds, size]: the keys of elements from everywhere; `size` is a multiple of _RUN."""
        run = _LINE_RUN if self.how == "lines" else _RUN
        stride = self.count // (size // run)
        out = self.empty(self.kinds, size, dtype=self.key)
        self.launch(write_keys, size, (out,), self.numbers(0, stride, stride - run), RUN=run)
        return out

    def counts(
        self, owners: Sequence[int], lows: Sequence[int], shifts: Sequence[int], buckets: int, beyond: bool = False
    ) -> torch.Tensor:
        """[entries, buckets]: the contract of run_counts, with a shift each; `beyond`: the last bucket is open."""
        out = self.zeros(len(owners), buckets)
        pairs = [number for pair in zip(lows, shifts, strict=True) for number in pair]
        self.launch(
            count_keys,
            self.count,
            (out,),
            self.numbers(buckets, *pairs),
            kind="counts",
            OWNERS=tuple(owners),
            ENTRIES=len(owners),
            NARROW=buckets <= BUCKETS,
            OPEN=beyond,
        )
        return out

    def scan(self, owners: Sequence[int], brackets: torch.Tensor, room: int, *, apart: bool = True) -> Scan:
        """What lies around `brackets` [entries, 2]; `room` for the places of as many keys between each.

        `apart`: they go to several segments, any of which may get more than its share of the room.
        """
        entries = len(owners)
        width = shape_of("scan", self.count).width * _STEPS
        programs = cdiv(self.count, width)
        segments = _SEGMENTS if apart else 1
        share = cdiv(room, segments)
        slots = torch.zeros(entries, segments, PADDING, dtype=torch.int32, device=brackets.device)
        tallies = self.empty(2 * entries + (self.how == "spread"), programs, dtype=torch.int32)
        places = self.empty(entries, segments, share, dtype=torch.int32 if self.count < 1 << 31 else torch.int64)
        self.launch(
            scan_keys,
            self.count,
            (slots, tallies, places),
            brackets,
            share,
            steps=_STEPS,
            OWNERS=tuple(owners),
            ENTRIES=entries,
            STEPS=_STEPS,
            SEGMENTS=segments,
        )
        return Scan(width, tallies, slots[:, :, 0], places)

    def keys_at(self, places: torch.Tensor) -> torch.Tensor:
        """[size]: the keys of the one kind at these places; -1 where there is none, a negative place."""
        out = self.empty(places.numel(), dtype=self.key)
        self.launch(pick_keys, places.numel(), (out, places), self.numbers())
        return out
