"""Model references: `path[@revision][+lora[@revision]]`, or the same as a mapping."""

from __future__ import annotations

from pymerge.config.nodes import Leaf, Node, Table
from pymerge.config.suggestions import suggest_name
from pymerge.config.values import ModelRef
from pymerge.errors import Location, Problem

__all__ = ["read_reference"]

_MODEL_KEYS = ("model", "lora", "override_architecture")
_PATH_KEYS = ("path", "revision")


def read_reference(node: Node, problems: list[Problem]) -> ModelRef | None:
    """Read a reference in either form; None, with a problem added, if it cannot be understood."""
    if isinstance(node, Leaf) and node.value is not None and node.text.strip():
        found = _split_text(node.text.strip(), node.where, problems)
    elif isinstance(node, Table):
        found = _read_mapping(node, problems)
    else:
        problems.append(Problem("a model must be named by a path", node.where, "model: path/to/folder"))
        return None
    return found


def _split_text(text: str, where: Location, problems: list[Problem]) -> ModelRef | None:
    model, plus, lora = text.partition("+")
    parts = [part.split("@") for part in ((model, lora) if plus else (model,))]
    if "+" in lora or any(len(part) > 2 or not all(part) for part in parts):
        problems.append(
            Problem(
                f'cannot read the model reference "{text}"',
                where,
                "the form is path[@revision][+lora[@revision]]; write a path that contains @ or + as "
                "model: {model: {path: ...}}",
            )
        )
        return None
    path, revision = parts[0][0], parts[0][1] if len(parts[0]) == 2 else None
    if not plus:
        return ModelRef(path, revision, where=where)
    return ModelRef(path, revision, parts[1][0], parts[1][1] if len(parts[1]) == 2 else None, where=where)


def _read_mapping(table: Table, problems: list[Problem]) -> ModelRef | None:
    _report_unknown(table, _MODEL_KEYS, problems)
    if "model" not in table.entries:
        problems.append(Problem("a model reference without model", table.where, "model: {model: {path: ...}}"))
        return None
    path = _read_path(table.entries["model"].node, problems)
    lora = _read_optional_path(table, "lora", problems)
    override = _read_text(table, "override_architecture", problems)
    if path is None:
        return None
    return ModelRef(path[0], path[1], lora[0] if lora else None, lora[1] if lora else None, override, table.where)


def _read_optional_path(table: Table, key: str, problems: list[Problem]) -> tuple[str, str | None] | None:
    entry = table.entries.get(key)
    if entry is None or (isinstance(entry.node, Leaf) and entry.node.value is None):
        return None
    return _read_path(entry.node, problems)


def _read_path(node: Node, problems: list[Problem]) -> tuple[str, str | None] | None:
    """Read `path[@revision]`, or {path, revision} in which the path may hold any character."""
    if isinstance(node, Leaf) and node.value is not None:
        path, at, revision = node.text.strip().partition("@")
        if path and "@" not in revision and bool(at) == bool(revision):
            return path, revision or None
        problems.append(Problem(f'cannot read the model path "{node.text}"', node.where, "write {path: ...}"))
        return None
    if not isinstance(node, Table):
        problems.append(Problem("a model path must be text, or {path, revision}", node.where))
        return None
    _report_unknown(node, _PATH_KEYS, problems)
    path_text = _read_text(node, "path", problems)
    if path_text is None:
        problems.append(Problem("a model reference without path", node.where, "{path: folder}"))
        return None
    return path_text, _read_text(node, "revision", problems)


def _read_text(table: Table, key: str, problems: list[Problem]) -> str | None:
    entry = table.entries.get(key)
    if entry is None:
        return None
    if not isinstance(entry.node, Leaf):
        problems.append(Problem(f"{key} must be text", entry.node.where))
        return None
    return None if entry.node.value is None else entry.node.text


def _report_unknown(table: Table, known: tuple[str, ...], problems: list[Problem]) -> None:
    for key, entry in table.entries.items():
        if key not in known:
            hint = suggest_name(key, known, "keys")
            problems.append(Problem(f'unknown key "{key}" in a model reference', entry.where, hint, True))
