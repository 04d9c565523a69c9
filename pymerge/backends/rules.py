"""Requests as the flat arguments that kernels take; kernels/mask/spec.py states the rules' tuples."""

from __future__ import annotations

from pymerge.ops import Band, Bernoulli, KeepAll, Lines, MaskRule, TaskMerge

__all__ = ["flatten_lines", "flatten_rule", "flatten_rules", "flatten_task_merge"]

#: An inner cut that holds nothing.
_NOTHING = ((1 << 64) - 1, -1)


def flatten_rule(rule: MaskRule) -> tuple[object, ...]:
    """Return ("all",), ("band", ...) or ("bernoulli", keep, key)."""
    if isinstance(rule, KeepAll):
        return ("all",)
    if isinstance(rule, Bernoulli):
        return ("bernoulli", rule.keep, rule.key)
    if isinstance(rule, Band):
        return ("band", rule.outer.bits, rule.outer.last, rule.inner.bits, rule.inner.last)
    return ("band", rule.cut.bits, rule.cut.last, *_NOTHING)


def flatten_lines(lines: Lines) -> tuple[int, int, bool]:
    """(count, length, strided), the order of every spec's `run_lines`."""
    return lines.count, lines.length, lines.strided


def flatten_rules(rules: tuple[MaskRule, ...]) -> list[tuple[object, ...]]:
    """Flatten each rule."""
    return [flatten_rule(rule) for rule in rules]


def flatten_task_merge(
    request: TaskMerge,
) -> tuple[list[tuple[object, ...]], list[float], str, list[float], bool, float, list[float], list[float]]:
    """The arguments of kernels/task_merge/spec.py from `rules` to `alone`, in its order."""
    return (
        flatten_rules(request.rules),
        list(request.coefficients),
        request.consensus,
        list(request.weights),
        request.normalize,
        request.scale,
        list(request.votes),
        list(request.alone),
    )
