"""Parameter settings: YAML node -> scalar, gradient or conditional list."""

from __future__ import annotations

from pymerge.config.nodes import MAX_DIGITS, Leaf, Node, Row, Table
from pymerge.config.suggestions import suggest_name
from pymerge.config.values import Case, Cases, Gradient, Scalar, Setting
from pymerge.errors import Problem

__all__ = ["read_settings"]

_CASE_KEYS = ("filter", "value")


def read_settings(node: Node, problems: list[Problem]) -> dict[str, Setting]:
    """Read a `parameters:` mapping; empty gradients count as not given."""
    if isinstance(node, Leaf) and node.value is None:
        return {}
    if not isinstance(node, Table):
        problems.append(
            Problem("parameters must be a mapping of names to values", node.where, "parameters: {weight: 0.5}")
        )
        return {}
    settings = {}
    for name, entry in node.entries.items():
        value = _read_value(name, entry.node, problems)
        if value is not None:
            settings[name] = Setting(value, entry.node.where)
    return settings


def _read_value(name: str, node: Node, problems: list[Problem]) -> Scalar | Gradient | Cases | None:
    if isinstance(node, Table):
        return _read_cases(name, (node,), problems)
    if isinstance(node, Row) and any(isinstance(item, Table) for item in node.items):
        return _read_cases(name, node.items, problems)
    return _read_plain(name, node, problems)


def _read_plain(name: str, node: Node, problems: list[Problem]) -> Scalar | Gradient | None:
    """Read a scalar or a gradient."""
    if isinstance(node, Leaf):
        return _read_scalar(name, node, problems)
    if not isinstance(node, Row) or not all(isinstance(item, Leaf) for item in node.items):
        problems.append(Problem(f"{name}: expected a value or a list of values", node.where))
        return None
    values = [_read_scalar(name, item, problems) for item in node.items if isinstance(item, Leaf)]
    kept = tuple(value for value in values if value is not None)
    return Gradient(kept) if kept else None


def _read_scalar(name: str, leaf: Leaf, problems: list[Problem]) -> Scalar | None:
    if leaf.value is None:
        problems.append(Problem(f"{name} has no value", leaf.where, "give a value or remove the line"))
        return None
    if isinstance(leaf.value, str):
        # YAML reads 1e-5 (no dot) and quoted numbers as text; recipes mean the number.
        try:
            return float(leaf.value) if len(leaf.value) <= MAX_DIGITS else leaf.value
        except ValueError:
            return leaf.value
    return leaf.value


def _read_cases(name: str, items: tuple[Node, ...], problems: list[Problem]) -> Cases | None:
    cases: list[Case] = []
    for item in items:
        if not isinstance(item, Table):
            problems.append(
                Problem(
                    f"{name}: a list holds either values or filter entries, not both",
                    item.where,
                    "write the plain value as an entry without filter: - value: ...",
                )
            )
            continue
        for key, entry in item.entries.items():
            if key not in _CASE_KEYS:
                hint = suggest_name(key, _CASE_KEYS, "keys")
                problems.append(Problem(f'{name}: unknown key "{key}" in a filter entry', entry.where, hint, True))
        if "value" not in item.entries:
            problems.append(Problem(f"{name}: a filter entry without value", item.where, "add value: ..."))
            continue
        node = item.entries["value"].node
        value = _read_plain(name, node, problems)
        if value is not None:
            cases.append(Case(value, _read_filter(name, item, problems), node.where))
    return Cases(tuple(cases)) if cases else None


def _read_filter(name: str, item: Table, problems: list[Problem]) -> str | None:
    entry = item.entries.get("filter")
    if entry is None:
        return None
    if not isinstance(entry.node, Leaf):
        problems.append(Problem(f"{name}: a filter is one piece of text", entry.node.where))
        return None
    return None if entry.node.value is None else entry.node.text
