"""YAML text as a small tree in which every value knows its place; no meaning is attached here.

PyYAML composes (never constructs objects); this module checks what its loaders let pass: duplicate
keys, foreign tags, alias bombs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from pymerge.errors import Location, Problem

__all__ = ["Entry", "Leaf", "Node", "Row", "Table", "compose_trees"]

#: Nodes after expanding aliases. The largest published recipes have a few thousand; a file of
#: nested aliases ("billion laughs") reaches 10^9 within ten lines.
MAX_NODES = 100_000

#: Levels of nesting; a recipe has seven. The C composer recurses and would overflow the stack.
MAX_DEPTH = 64

#: Characters of a number. YAML's may be thousands of digits long, in base 60 too, which takes hours to read.
MAX_DIGITS = 64

_PLAIN = "tag:yaml.org,2002:"
_MERGE = _PLAIN + "merge"
_TAGS = {_PLAIN + kind for kind in ("str", "int", "float", "bool", "null", "timestamp", "value", "seq", "map")}
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A scalar: its YAML value, and its text as written (names are taken from the text)."""

    value: str | int | float | bool | None
    text: str
    where: Location


@dataclass(frozen=True, slots=True)
class Row:
    """A list."""

    items: tuple[Node, ...]
    where: Location


@dataclass(frozen=True, slots=True)
class Entry:
    """A value in a table; `where` is the place of its key."""

    node: Node
    where: Location


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping; keys as written."""

    entries: dict[str, Entry]
    where: Location


Node: TypeAlias = "Leaf | Row | Table"

_TOO_DEEP = "values are nested too deeply"


def compose_trees(text: str, name: str, problems: list[Problem]) -> list[Node]:
    """Parse YAML `text` into trees, one for each document that is not empty.

    Args:
        text: the whole file.
        name: file name for locations.
        problems: findings are appended here.

    Returns:
        The trees; none if the text is empty or cannot be read at all (then `problems` says why).
    """
    loader = None
    try:
        if (excess := _find_excess(text, name)) is not None:
            problems.append(excess)
            return []
        loader = _Loader(text)
        documents = [node for node in _iterate_documents(loader) if not _is_empty(node)]
        if not documents:
            problems.append(Problem("the recipe is empty", Location(name, 1, 1)))
        if sum(_count_nodes(document, {}) for document in documents) > MAX_NODES:
            problems.append(Problem(f"aliases expand to more than {MAX_NODES} values", _locate(documents[0], name)))
            return []
        return [_convert(document, name, problems, {}) for document in documents]
    except yaml.YAMLError as error:
        problems.append(_explain(error, text, name))
    finally:
        if loader is not None:
            loader.dispose()
    return []


def _find_excess(text: str, name: str) -> Problem | None:
    """Say where nesting passes MAX_DEPTH or values MAX_NODES; reading events needs neither recursion nor memory."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        if count > 2 * MAX_NODES:  # of which each value has one or two
            return Problem(f"more than {MAX_NODES} values", _locate(event, name))
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            depth += 1
            if depth > MAX_DEPTH:
                return Problem(_TOO_DEEP, _locate(event, name))
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            depth -= 1
    return None


def _iterate_documents(loader: Any) -> Iterator[Any]:
    while loader.check_node():
        yield loader.get_node()


def _is_empty(node: Any) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _PLAIN + "null"


def _locate(node: Any, name: str) -> Location:
    return Location(name, node.start_mark.line + 1, node.start_mark.column + 1)


def _count_nodes(node: Any, sizes: dict[int, int]) -> int:
    """Count nodes with aliases expanded; shared nodes are counted once and their size reused."""
    known = sizes.get(id(node))
    if known is not None:
        return known
    # A node met again while it is being counted contains itself: over any limit.
    sizes[id(node)] = MAX_NODES + 1
    total = 1
    if isinstance(node, yaml.SequenceNode):
        total += sum(_count_nodes(item, sizes) for item in node.value)
    elif isinstance(node, yaml.MappingNode):
        total += sum(_count_nodes(key, sizes) + _count_nodes(value, sizes) for key, value in node.value)
    sizes[id(node)] = total
    return total


def _convert(node: Any, name: str, problems: list[Problem], done: dict[int, Node]) -> Node:
    known = done.get(id(node))
    if known is not None:
        return known
    where = _locate(node, name)
    if node.tag not in _TAGS:
        problems.append(Problem(f"the YAML tag {node.tag} is not allowed", where, "write a plain value"))
    tree: Node
    if isinstance(node, yaml.ScalarNode):
        tree = Leaf(_read_scalar(node, where, problems), node.value, where)
    elif isinstance(node, yaml.SequenceNode):
        tree = Row(tuple(_convert(item, name, problems, done) for item in node.value), where)
    else:
        tree = Table(_convert_entries(node, name, problems, done), where)
    done[id(node)] = tree
    return tree


def _convert_entries(node: Any, name: str, problems: list[Problem], done: dict[int, Node]) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    merged: list[Table] = []
    for key, value in node.value:
        where = _locate(key, name)
        if not isinstance(key, yaml.ScalarNode):
            problems.append(Problem("a key must be a plain word", where))
        elif key.tag == _MERGE:
            found = _convert(value, name, problems, done)
            tables = found.items if isinstance(found, Row) else (found,)
            merged.extend(table for table in tables if isinstance(table, Table))
            if not all(isinstance(table, Table) for table in tables):
                problems.append(Problem("<< must refer to a mapping", where))
        elif key.value in entries:
            first = entries[key.value].where
            problems.append(Problem(f'key "{key.value}" appears twice', where, f"first at {first}; keep one"))
        else:
            entries[key.value] = Entry(_convert(value, name, problems, done), where)
    for table in merged:
        for word, entry in table.entries.items():
            entries.setdefault(word, entry)
    return entries


def _read_scalar(node: Any, where: Location, problems: list[Problem]) -> str | int | float | bool | None:
    if node.tag in {_PLAIN + "null", _PLAIN + "int", _PLAIN + "float", _PLAIN + "bool"}:
        if len(node.value) > MAX_DIGITS:
            problems.append(Problem(f"a number of {len(node.value)} characters", where, f"at most {MAX_DIGITS}"))
            return str(node.value)
        try:
            value: str | int | float | bool | None = yaml.constructor.SafeConstructor().construct_object(node)
            return value
        except (yaml.YAMLError, ValueError, KeyError, IndexError, OverflowError):
            problems.append(Problem(f'"{node.value}" is not a {node.tag.rsplit(":", 1)[-1]}', where))
    return str(node.value)


def _explain(error: yaml.YAMLError, text: str, name: str) -> Problem:
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    if mark is not None:
        where = Location(name, mark.line + 1, mark.column + 1)
    else:
        before = text[: getattr(error, "position", 0)]
        where = Location(name, before.count("\n") + 1, len(before) - before.rfind("\n"))
    if "nesting depth" in reason:  # PyYAML from 6.0.4 on has a limit of its own in the scanner
        return Problem(_TOO_DEEP, where)
    lines = text.splitlines()
    line = lines[where.line - 1] if where.line <= len(lines) else ""
    hint = "indent with spaces, not tabs" if "\t" in line[: max(where.column, 1)] else None
    return Problem(f"this is not valid YAML: {reason}", where, hint)
