"""From tile partials to a measure's answer: the last, exact addition, shared by all backends."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pymerge.backends.calls import Call
from pymerge.kernels.common.exact import exact_sum
from pymerge.ops import Cut, MaskedTotals

__all__ = ["answer_of"]


def answer_of(call: Call, raw: Any) -> object:
    """What the compiled kernels return for a measure to the answer that its request states."""
    return _ANSWERS[call.kernel](raw, call)


def _gram_matrix(partials: Sequence[Sequence[float]], call: Call) -> tuple[tuple[float, ...], ...]:
    """[tiles][pairs (0,0), (0,1), .., (1,1), ..] partials to a symmetric size x size matrix."""
    size = len(call.sources)
    sums = [exact_sum(column) for column in zip(*partials, strict=True)]
    matrix = [[0.0] * size for _ in range(size)]
    pairs = ((i, j) for i in range(size) for j in range(i, size))
    for (i, j), value in zip(pairs, sums, strict=True):
        matrix[i][j] = matrix[j][i] = value
    return tuple(map(tuple, matrix))


def _line_numbers(raw: bytes, _: Call) -> array[float]:
    """The bytes of float64 numbers per line to a flat array; they are final."""
    sums = array("d")
    sums.frombytes(raw)
    return sums


def _cuts(pairs: Sequence[tuple[int, int]], _: Call) -> tuple[Cut, ...]:
    """(bits, last) pairs to cuts."""
    return tuple(Cut(bits, last) for bits, last in pairs)


def _words(raw: bytes, _: Call) -> array[int]:
    """The bytes of uint64 numbers to a flat array."""
    words = array("Q")
    words.frombytes(raw)
    return words


def _masked_totals(partials: Sequence[tuple[float, float, int]], call: Call) -> tuple[MaskedTotals, ...]:
    """[tiles * size] rows of (total, kept, count), tile by tile, to one answer per source."""
    size = len(call.sources)
    reduce = _largest if "linf" in call.arguments else exact_sum
    columns = [tuple(zip(*partials[source::size], strict=True)) for source in range(size)]
    return tuple(MaskedTotals(reduce(total), reduce(kept), sum(count)) for total, kept, count in columns)


def _overlaps(partials: Sequence[tuple[int, int]], call: Call) -> tuple[tuple[int, int], ...]:
    """[tiles * size] rows of (alone, shared), tile by tile, to one pair per source."""
    size = len(call.sources)
    return tuple(
        (sum(row[0] for row in partials[source::size]), sum(row[1] for row in partials[source::size]))
        for source in range(size)
    )


def _largest(values: Iterable[float]) -> float:
    return max(values, key=lambda value: (math.isnan(value), value))


_ANSWERS: dict[str, Callable[[Any, Call], object]] = {
    "gram": _gram_matrix,
    "gram_lines": _line_numbers,
    "select": _cuts,
    "select_spread": _cuts,
    "key_sample": _words,
    "key_counts": _words,
    "key_counts_open": _words,
    "select_lines": _cuts,
    "masked_sum": _masked_totals,
    "overlap": _overlaps,
    "row_divergence": _line_numbers,
}
