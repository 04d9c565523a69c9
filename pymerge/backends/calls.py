"""Requests as calls of kernels: the one table that every backend and the engine go by.

A call is a kernel's name and what it takes besides inputs and types, in the order of its spec:
`run(tensors, base, *arguments, compute)` for a measure, `run(tensors, base, *arguments, compute,
out_dtype)` for a combine. kernels/mask/spec.py states the rules' tuples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pymerge.ops import (
    Band,
    Bernoulli,
    Combine,
    Copy,
    Fusion,
    Gram,
    KeepAll,
    KeyCounts,
    KeySample,
    Lines,
    MaskedSum,
    MaskRule,
    Measure,
    NearSwap,
    Overlap,
    RankBernoulli,
    RowDivergence,
    Select,
    SelectSpread,
    Spread,
    TaskMerge,
    TopK,
    WeightedSum,
)

__all__ = ["Call", "call_of", "flatten_rule"]


@dataclass(frozen=True, slots=True)
class Call:
    """A kernel of this name, with these arguments, on these of a task's sources."""

    kernel: str
    arguments: tuple[Any, ...]
    sources: tuple[int, ...]
    base: int | None


#: An inner cut that holds nothing.
_NOTHING = ((1 << 64) - 1, -1)

_RULES: dict[type[Any], Callable[[Any], tuple[object, ...]]] = {
    KeepAll: lambda rule: ("all",),
    TopK: lambda rule: ("band", rule.cut.bits, rule.cut.last, *_NOTHING),
    Band: lambda rule: ("band", rule.outer.bits, rule.outer.last, rule.inner.bits, rule.inner.last),
    Bernoulli: lambda rule: ("bernoulli", rule.keep, rule.key),
    Spread: lambda rule: ("spread", rule.cut.bits, rule.cut.last),
    RankBernoulli: lambda rule: ("rank_bernoulli", rule.density, rule.epsilon, rule.key, rule.row),
}


def flatten_rule(rule: MaskRule) -> tuple[object, ...]:
    """Return the rule's tuple: its kind, then its numbers."""
    return _RULES[type(rule)](rule)


def _rules(rules: tuple[MaskRule, ...]) -> list[tuple[object, ...]]:
    return [flatten_rule(rule) for rule in rules]


def _lines(lines: Lines) -> tuple[int, int, bool]:
    return lines.count, lines.length, lines.strided


def _gram(request: Gram) -> tuple[str, tuple[Any, ...]]:
    return ("gram_lines", (_lines(request.lines),)) if request.lines else ("gram", ())


def _select(request: Select) -> tuple[str, tuple[Any, ...]]:
    if request.lines:
        return "select_lines", (list(request.counts), request.factors, _lines(request.lines))
    return "select", (list(request.counts),)


def _key_counts(request: KeyCounts) -> tuple[str, tuple[Any, ...]]:
    return ("key_counts_open" if request.open else "key_counts"), (list(request.lows), request.shift, request.buckets)


def _weighted_sum(request: WeightedSum) -> tuple[str, tuple[Any, ...]]:
    if request.lines:
        return "weighted_sum_lines", (request.coefficients, _lines(request.lines))
    return "weighted_sum", (list(request.coefficients),)


def _task_merge(request: TaskMerge) -> tuple[str, tuple[Any, ...]]:
    return "task_merge", (
        _rules(request.rules),
        list(request.coefficients),
        request.consensus,
        list(request.weights),
        request.normalize,
        request.scale,
        list(request.votes),
        list(request.alone),
        request.pick,
    )


_CALLS: dict[type[Any], Callable[[Any], tuple[str, tuple[Any, ...]]]] = {
    Gram: _gram,
    Select: _select,
    SelectSpread: lambda request: ("select_spread", (request.share,)),
    KeySample: lambda request: ("key_sample", (request.apart,)),
    KeyCounts: _key_counts,
    MaskedSum: lambda request: ("masked_sum", (_rules(request.rules), request.norm)),
    Overlap: lambda request: ("overlap", (_rules(request.rules),)),
    RowDivergence: lambda request: ("row_divergence", (_lines(request.lines),)),
    WeightedSum: _weighted_sum,
    TaskMerge: _task_merge,
    NearSwap: lambda request: ("near_swap", (request.t,)),
    Fusion: lambda request: ("fusion", (request.factors, _lines(request.lines), request.threshold)),
}


def call_of(request: Measure | Combine) -> Call:
    """The call that a request means; a copy is one only where its dtype changes."""
    if isinstance(request, Copy):
        request = WeightedSum((request.source,), (1.0,))
    kernel, arguments = _CALLS[type(request)](request)
    return Call(kernel, arguments, request.sources, request.base)
