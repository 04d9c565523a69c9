"""`compare`: two checkpoints tensor by tensor, whatever their shards and the order in them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np

from pymerge.checkpoint import Source
from pymerge.kernels.common.convert import Array, decode
from pymerge.schedule.machine import usable_processors
from pymerge.verify.reading import map_threads, open_model, read_pieces
from pymerge.verify.ulp import distance, distance_between_types, narrower

__all__ = ["Comparison", "Misfit", "TensorComparison", "compare"]


#: Sums of squares between this and its inverse have lost nothing that counts.
_SAFE = 1e-250


@dataclass(frozen=True, slots=True)
class TensorComparison:
    """One tensor of both checkpoints.

    Attributes:
        dtypes: of the first and of the second.
        equal: elements that are the same (of one type: bit by bit; NaN is like NaN).
        apart: elements no number of units apart: one is not finite and the other is something else, or they
            are no floats and differ.
        max_ulp: most units in the last place between elements that are finite; of two types, units of the
            narrower one.
        relative: norm of the difference over the larger of both norms, of what is finite.
    """

    name: str
    shape: tuple[int, ...]
    dtypes: tuple[str, str]
    count: int
    equal: int
    apart: int = 0
    max_ulp: int = 0
    relative: float = 0.0

    @property
    def share(self) -> float:
        """Of the elements, how many are equal: 1.0 for none at all."""
        return self.equal / self.count if self.count else 1.0

    def is_within(self, max_ulp: int) -> bool:
        """Whether no element is further off; 0 also wants the same type."""
        same = self.dtypes[0] == self.dtypes[1] or max_ulp > 0
        return same and not self.apart and self.max_ulp <= max_ulp


@dataclass(frozen=True, slots=True)
class Misfit:
    """A tensor of different shapes."""

    name: str
    first: tuple[int, ...]
    second: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two checkpoints, compared.

    Attributes:
        tensors: what both have in one shape, sorted by name.
        missing, surplus: names that only the first, and only the second, has.
        max_ulp: what was allowed.
    """

    first: str
    second: str
    tensors: tuple[TensorComparison, ...]
    missing: tuple[str, ...]
    surplus: tuple[str, ...]
    misfits: tuple[Misfit, ...]
    max_ulp: int

    @property
    def differing(self) -> tuple[TensorComparison, ...]:
        """Tensors that are not within what was allowed, the worst first."""
        found = (tensor for tensor in self.tensors if not tensor.is_within(self.max_ulp))
        return tuple(sorted(found, key=lambda each: (-each.apart, -each.max_ulp, -each.relative, each.name)))

    @property
    def agree(self) -> bool:
        """Whether both have the same tensors, within what was allowed."""
        return not (self.missing or self.surplus or self.misfits or self.differing)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            **asdict(self),
            "tensors": [{**asdict(tensor), "share": tensor.share} for tensor in self.tensors],
            "differing": [tensor.name for tensor in self.differing],
            "agree": self.agree,
        }


def compare(
    first: str | os.PathLike[str], second: str | os.PathLike[str], *, max_ulp: int = 0, threads: int | None = None
) -> Comparison:
    """Compare two model folders or weight files; nothing but the result is held.

    Args:
        max_ulp: units in the last place that elements may differ by. 0: the same types and bits.
        threads: None takes the processors of this process.

    Raises:
        RecipeError: there is no such model.
        FormatError: one of them is damaged.
    """
    left, right = (open_model(os.fspath(path)).tensors for path in (first, second))
    both = sorted(left.keys() & right.keys())
    fitting = [name for name in both if left[name].shape == right[name].shape]
    pairs = [(left[name], right[name]) for name in fitting]
    return Comparison(
        first=os.fspath(first),
        second=os.fspath(second),
        tensors=tuple(map_threads(lambda pair: _compare(*pair), pairs, threads or usable_processors())),
        missing=tuple(sorted(left.keys() - right.keys())),
        surplus=tuple(sorted(right.keys() - left.keys())),
        misfits=tuple(
            Misfit(name, left[name].shape, right[name].shape) for name in both if left[name].shape != right[name].shape
        ),
        max_ulp=max_ulp,
    )


#: Name, shape, types and number of elements.
_Facts: TypeAlias = tuple[str, tuple[int, ...], tuple[str, str], int]


def _compare(left: Source, right: Source) -> TensorComparison:
    count = left.count
    facts: _Facts = (left.name, left.shape, (left.dtype.name, right.dtype.name), count)
    # Most tensors of most comparisons are the same, which is found out at the speed of memory.
    if left.dtype == right.dtype and all(_same(*pair) for pair in _read_pairs(left, right)):
        return TensorComparison(*facts, equal=count)
    if not (left.dtype.mergeable and right.dtype.mergeable):
        apart = count
        if left.dtype == right.dtype:
            apart = sum(int(np.count_nonzero(a != b)) for a, b in _read_pairs(left, right))
        return TensorComparison(*facts, equal=max(0, count - apart), apart=apart)
    return _compare_floats(left, right, facts)


def _compare_floats(left: Source, right: Source, facts: _Facts) -> TensorComparison:
    narrow = narrower(left.dtype.name, right.dtype.name)
    equal = apart = most = 0
    norms = [0.0, 0.0, 0.0]
    for a, b in _read_pairs(left, right):
        units, far = distance(a, b) if a.dtype == b.dtype else distance_between_types(a, b, narrow)
        distant = int(np.count_nonzero(far))
        equal += int(np.count_nonzero(units == 0)) - distant
        apart += distant
        most = max(most, int(units.max(initial=0)))
        x, y = decode(a, "float64"), decode(b, "float64")
        finite = np.isfinite(x) & np.isfinite(y)
        if not finite.all():
            x, y = x[finite], y[finite]
        if a.dtype.itemsize == 8 or b.dtype.itemsize == 8:
            # The difference of two of the largest float64 is none; that of their halves is.
            x, y = x / 2, y / 2
        norms = [math.hypot(norm, _norm(part)) for norm, part in zip(norms, (x - y, x, y), strict=True)]
    size = max(norms[1:])
    return TensorComparison(*facts, equal, apart, most, norms[0] / size if size else 0.0)


def _read_pairs(left: Source, right: Source) -> Iterator[tuple[Array, Array]]:
    return zip(read_pieces(left), read_pieces(right), strict=True)


def _same(left: Array, right: Array) -> bool:
    return np.array_equal(left.view(np.uint8), right.view(np.uint8))


def _norm(values: Array) -> float:
    """The Euclidean norm; where squares overflow or vanish, of numbers scaled to 1."""
    # Not by BLAS, which would have threads of its own in each of ours.
    with np.errstate(over="ignore"):
        square = float(np.square(values).sum())
    if _SAFE < square < 1 / _SAFE:
        return math.sqrt(square)
    largest = float(np.abs(values).max(initial=0.0))
    return largest * math.sqrt(float(np.square(values / largest).sum())) if largest else 0.0
