"""What a merge method may ask for: the measures it reads, the one combine it ends with.

These values are the whole language between methods (which decide, in float64) and backends (which
touch the data). Sources are positions in a task's list of source tensors. With a `base`, a kernel
sees task vectors D_i = X_i - B, computed in float32 from the exactly decoded inputs (float64 where
an input is float64 or the recipe's dtype is). The arithmetic itself is stated, and runs, in
`kernels/<name>/spec.py`.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

__all__ = [
    "KEEP_ALL",
    "KEEP_NONE",
    "Band",
    "Bernoulli",
    "Combine",
    "Copy",
    "Cut",
    "Fusion",
    "Gram",
    "KeepAll",
    "KeyCounts",
    "KeySample",
    "Lines",
    "MaskRule",
    "MaskedSum",
    "MaskedTotals",
    "Measure",
    "NearSwap",
    "Overlap",
    "Program",
    "RankBernoulli",
    "RowDivergence",
    "Select",
    "SelectSpread",
    "Spread",
    "Steps",
    "TaskMerge",
    "TopK",
    "WeightedSum",
]


# Mask rules: a few numbers that stand for an int8 mask, which exists only inside a tile.


@dataclass(frozen=True, slots=True)
class Cut:
    """Where the k largest magnitudes of a task vector end.

    An element belongs to the k largest if the bit pattern of its magnitude is above `bits`, or
    equal to it with a flat index of at most `last`: ties go to the lowest index. Patterns are
    those of the compute type (float32, or float64 for float64 tasks), sign bit cleared.
    """

    bits: int
    last: int

    def magnitude(self, *, wide: bool) -> float:
        """The k-th largest magnitude itself; `wide` if the patterns are float64's."""
        size, kind = (8, "<d") if wide else (4, "<f")
        value: float = struct.unpack(kind, self.bits.to_bytes(size, "little"))[0]
        return value


@dataclass(frozen=True, slots=True)
class KeepAll:
    """Every element is kept."""


@dataclass(frozen=True, slots=True)
class TopK:
    """The k largest magnitudes are kept (TIES trim; Yadav et al. 2023, section 3)."""

    cut: Cut


@dataclass(frozen=True, slots=True)
class Band:
    """Kept: what is inside `outer` and not inside `inner` (Model Breadcrumbs, Davari 2023)."""

    outer: Cut
    inner: Cut


@dataclass(frozen=True, slots=True)
class Bernoulli:
    """Each element is kept with probability keep / 65536, independently (DARE, Yu et al. 2023).

    The draw depends on nothing but `key` (64 bits) and the element's flat index: Philox4x32-7,
    16 bits an element, laid out as kernels/common/random.py states.
    """

    keep: int
    key: int


@dataclass(frozen=True, slots=True)
class Spread:
    """Kept: the elements at which the sources of the request are the furthest apart (SCE, Wan et al. 2024).

    One mask for all sources. What is compared is n^2 times their variance; `cut` is of a `SelectSpread`.
    """

    cut: Cut


@dataclass(frozen=True, slots=True)
class RankBernoulli:
    """Bernoulli with chances by rank: larger elements of a row are likelier kept (DELLA, Deep et al. 2024).

    Chances rise by equal steps from density - epsilon for the least magnitude of a row to density +
    epsilon for the largest; magnitudes that kernels/common/ranks.py puts in one class have the same
    chance, that of their mean rank. Draws are those of Bernoulli.

    Attributes:
        density, epsilon: the mean chance, and how far it goes down and up from there.
        key: of the random stream (64 bits).
        row: elements of a row, the tensor's last dimension. Rows of more than 65,536 elements are cut
            into segments of that many, each ranked on its own.
    """

    density: float
    epsilon: float
    key: int
    row: int


MaskRule: TypeAlias = KeepAll | TopK | Band | Bernoulli | RankBernoulli | Spread

KEEP_ALL = KeepAll()
#: A cut above every magnitude, NaN included.
KEEP_NONE = TopK(Cut(bits=(1 << 63) - 1, last=-1))


@dataclass(frozen=True, slots=True)
class Lines:
    """A tensor cut into `count` vectors of `length` elements each, for numbers per row or per column.

    The element of flat index e belongs to vector e // length, or to e % count if `strided`.
    """

    count: int
    length: int
    strided: bool = False


# Measures: one streaming pass each; the answer is sent into the program.


@dataclass(frozen=True, slots=True)
class Gram:
    """Pairwise inner products of the sources, or of their task vectors where `base` is given.

    Answer: a tuple of n rows of n floats (float64). With `lines` one matrix per vector, the upper
    triangle of each: a flat array("d") of [lines.count, n (n + 1) / 2], the pairs in the order (0, 0),
    (0, 1), ..., (1, 1), ...
    """

    sources: tuple[int, ...]
    base: int | None = None
    lines: Lines | None = None


@dataclass(frozen=True, slots=True)
class Select:
    """Exact cuts: for each source the `counts[i]` largest magnitudes of its task vector.

    A source may be listed more than once, with different counts; 0 <= counts[i] <= n elements.
    `group`: together with the selects of other tensors in a group of this name, the sums of their counts are
    selected, tensors standing one after the other; a program asks for that first of all, if it does.
    With `lines` a magnitude is that of the element times its vector's factor, a flat array("d") of
    [lines.count].
    Answer: a tuple of `Cut`, one per count.
    """

    sources: tuple[int, ...]
    counts: tuple[int, ...]
    base: int | None = None
    group: str = ""
    factors: Sequence[float] = ()
    lines: Lines | None = None


@dataclass(frozen=True, slots=True)
class SelectSpread:
    """The exact cut of the elements at which all sources are the furthest apart, for a `Spread` rule.

    There are c elements at which not all sources are equal; int(share * c) of them are selected.
    Answer: a tuple of one `Cut`, that of KEEP_NONE if none is selected.
    """

    sources: tuple[int, ...]
    share: float
    base: None = None


@dataclass(frozen=True, slots=True)
class KeySample:
    """Magnitudes of each task vector, as bit patterns, of few elements: what is likely to be where.

    One run of 64 elements in each `apart`, which is more; kernels/select/spec.py says which.
    Answer: a flat array("Q") of [n, patterns].
    """

    sources: tuple[int, ...]
    apart: int
    base: int | None = None


@dataclass(frozen=True, slots=True)
class KeyCounts:
    """How many magnitudes of each task vector lie where: what a group's cuts are found by.

    The bit patterns from `lows[i]` on are cut into `buckets` of 2^`shift` each; `open`: all beyond are one more.
    Answer: a flat array("Q") of [n, buckets + open].
    """

    sources: tuple[int, ...]
    lows: tuple[int, ...]
    shift: int
    buckets: int
    base: int | None = None
    open: bool = False


@dataclass(frozen=True, slots=True)
class RowDivergence:
    """KL divergence of each row of the one source from the base's, both as softmax + 1e-8.

    `lines` are rows, not columns. Answer: a flat array("d") of [lines.count], none of them negative;
    NaN for rows that hold NaN or +infinity.
    """

    sources: tuple[int, ...]
    base: int
    lines: Lines


@dataclass(frozen=True, slots=True)
class MaskedTotals:
    """A task vector's norm terms: of all elements, of the kept ones; and how many were kept."""

    total: float
    kept: float
    count: int


@dataclass(frozen=True, slots=True)
class MaskedSum:
    """Norms of task vectors before and after their masks.

    `norm`: "l1" sums the magnitudes, "l2" the squares (no root is taken), "linf" takes the largest.
    Answer: a tuple of `MaskedTotals`, one per source.
    """

    sources: tuple[int, ...]
    rules: tuple[MaskRule, ...]
    base: int | None = None
    norm: str = "l1"


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many elements of each task vector are kept there alone, and how many together with others.

    An element counts as kept if its mask is 1 and it is not zero.
    Answer: a tuple of (alone, shared), one pair of integers per source.
    """

    sources: tuple[int, ...]
    rules: tuple[MaskRule, ...]
    base: int | None = None


Measure: TypeAlias = Gram | Select | SelectSpread | KeySample | KeyCounts | MaskedSum | Overlap | RowDivergence


# Combines: one fused pass that reads every source once and writes the output once.


@dataclass(frozen=True, slots=True)
class Copy:
    """The source's bytes, untouched (converted only if the output's dtype differs)."""

    source: int


@dataclass(frozen=True, slots=True)
class WeightedSum:
    """Y = sum_i coefficients[i] * X_i, in source order.

    With `lines` each vector has its own coefficients, a flat array("d") of [n, lines.count]; then there
    may be a base: Y = B + sum_i coefficients[i] * D_i. (For one coefficient per tensor that is a TaskMerge.)
    """

    sources: tuple[int, ...]
    coefficients: Sequence[float]
    base: int | None = None
    lines: Lines | None = None


@dataclass(frozen=True, slots=True)
class TaskMerge:
    """Y = B + S, where S sums the masked, scaled task vectors P_i = coefficients[i] * m_i * D_i.

    Attributes:
        consensus: "none": S = sum_i P_i; every divisor and scale is already in the coefficients.
            Else S sums the P_i that take part at an element, times a factor. Who takes part:
            "sum": those of the sign of the summed votes (TIES; zero counts as +);
            "count": those of the sign that more votes have;
            "overlap": all that are not masked (RAM).
        weights: the factor is `scale` / Z, where Z is the sum of the weights that took part (1 if
            that is zero) when `normalize`, else 1.
        votes: a source votes with votes[i] * m_i * D_i; empty: with P_i.
        alone: the factor where only source i took part; empty: as anywhere.
        pick: not the sum but the largest, by magnitude, of the P_i that take part, times `scale`.
    """

    base: int
    sources: tuple[int, ...]
    rules: tuple[MaskRule, ...]
    coefficients: tuple[float, ...]
    consensus: str = "none"
    weights: tuple[float, ...] = ()
    normalize: bool = False
    scale: float = 1.0
    votes: tuple[float, ...] = ()
    alone: tuple[float, ...] = ()
    pick: bool = False


@dataclass(frozen=True, slots=True)
class NearSwap:
    """Y = q X + (1 - q) B, q = min(t / max(|X - B|, 1e-6), 1); X is the one entry of `sources`."""

    base: int
    sources: tuple[int, ...]
    t: float


@dataclass(frozen=True, slots=True)
class Fusion:
    """Y = B + (|D k| >= threshold ? D : 0), k the factor of the element's vector; D is the one source's.

    Scores compare as the patterns of a `Cut` do: NaN reaches every threshold.
    """

    base: int
    sources: tuple[int, ...]
    factors: Sequence[float]
    lines: Lines
    threshold: float


Combine: TypeAlias = Copy | WeightedSum | TaskMerge | NearSwap | Fusion

_T = TypeVar("_T")
#: A part of a program: yields measures, is sent each one's answer (whose type the request states).
Steps: TypeAlias = Generator[Measure, Any, _T]
#: A method's program ends with its combine.
Program: TypeAlias = Steps[Combine]
