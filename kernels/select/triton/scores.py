"""What select orders: keys of tensors on a device, and the launches that read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...common.triton.launch import cdiv, launch, pack_numbers, real_of, shape_of
from .passes import BUCKETS, PADDING, count_key, count_keys, scan_keys, write_keys

__all__ = ["Scores"]

#: Elements that are sampled next to each other: of a line, so few that every line has some.
_RUN, _LINE_RUN = 32, 4


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
        **constants: Any,
    ) -> None:
        """Run a kernel of this file on `size` elements."""
        shape = shape_of("scan", size)
        lines, length, strided = self.lines
        launch(
            kernel,
            cdiv(size, shape.width),
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
            OWNERS=tuple(owners),
            ENTRIES=len(owners),
            NARROW=buckets <= BUCKETS,
            OPEN=beyond,
        )
        return out

    def scan(
        self, owners: Sequence[int], brackets: torch.Tensor, room: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What lies in and above `brackets` [entries, 2].

        Returns:
            [entries, 3] counts of keys inside and above, and of elements that differ (of spread only);
            [entries, room] keys, and their places.
        """
        entries = len(owners)
        programs = cdiv(self.count, shape_of("scan", self.count).width)
        slots = self.zeros(entries, PADDING)
        sums = self.empty(entries + (self.how == "spread"), programs, dtype=torch.int32)
        keys = self.empty(entries, room, dtype=self.key)
        places = self.empty(entries, room, dtype=torch.int32 if self.count < 1 << 31 else torch.int64)
        self.launch(
            scan_keys,
            self.count,
            (slots, sums, keys, places),
            brackets,
            room,
            OWNERS=tuple(owners),
            ENTRIES=entries,
        )
        added = sums.sum(1)
        return torch.stack([slots[:, 0], added[:entries], added[-entries:]], 1), keys, places

    def count_of(self, key: int, width: int) -> torch.Tensor:
        """How many of each `width` elements of the one kind have this key."""
        counts = self.empty(cdiv(self.count, width), dtype=torch.int32)
        self.launch(count_key, self.count, (counts,), self.numbers(key))
        return counts
