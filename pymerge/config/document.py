"""The grammar of a recipe: which keys stand at which level, and what each holds.

Keys are tables, so that "unknown", "not supported yet" and "accepted, without effect" are data.
"""

from __future__ import annotations

from pymerge.config.nodes import Leaf, Node, Row, Table
from pymerge.config.references import read_reference
from pymerge.config.settings import read_settings
from pymerge.config.suggestions import suggest_name
from pymerge.config.tokenizers import read_chat_template, read_tokenizer
from pymerge.config.values import Filter, Input, MergeConfig, ModelRef, Module, Setting, Slice
from pymerge.dtypes import BY_NAME, DType
from pymerge.errors import Location, Problem

__all__ = ["read_document"]

_KEYS = {
    "a recipe": (
        "merge_method", "models", "slices", "modules", "base_model", "parameters", "dtype", "out_dtype", "name",
        "include", "exclude", "tokenizer", "tokenizer_source", "chat_template",
    ),
    "a model": ("model", "parameters"),
    "a slice": ("sources", "base_model", "parameters"),
    "a slice source": ("model", "layer_range", "parameters"),
    "a module": ("models", "slices", "parameters"),
}  # fmt: skip

#: Accepted by the established tool, without any effect there either.
_NO_EFFECT = ("residual_weight", "input_model_parameters")


def read_document(root: Node, text: str, name: str, problems: list[Problem]) -> MergeConfig | None:
    """Read the whole recipe; problems are appended, reading goes on after each.

    Returns:
        The recipe (usable only if no fatal problem was found), or None if it is no recipe at all.
    """
    if not isinstance(root, Table):
        problems.append(Problem("a recipe is a mapping of keys to values", root.where, "merge_method: slerp ..."))
        return None
    _check_keys(root, "a recipe", problems)
    models, slices = _read_members(root, "a recipe", ("models", "slices", "modules"), problems)
    method = root.entries.get("merge_method")
    return MergeConfig(
        merge_method=_read_method(root, problems),
        models=models,
        slices=slices,
        modules=_read_modules(root, problems),
        base_model=_read_base(root, problems),
        parameters=_read_parameters(root, problems),
        dtype=_read_dtype(root, "dtype", problems),
        out_dtype=_read_dtype(root, "out_dtype", problems),
        text=text,
        name=name,
        method_where=method.node.where if method else None,
        include=_read_filters(root, "include", problems),
        exclude=_read_filters(root, "exclude", problems),
        tokenizer=read_tokenizer(root, problems),
        chat_template=read_chat_template(root, problems),
        stage=_read_name(root, problems),
        where=root.where,
    )


def _read_members(
    table: Table, level: str, keys: tuple[str, ...], problems: list[Problem]
) -> tuple[tuple[Input, ...], tuple[Slice, ...]]:
    """Models and slices, after checking that one of `keys`, and no other, holds something."""
    given = [key for key in keys if _holds(table, key)]
    if len(given) > 1:
        later = max((table.entries[key].where for key in given), key=lambda where: where.line)
        problems.append(Problem(f"{' and '.join(given)} are both given", later, "keep one of the two"))
    elif not given:
        what = f"{level} needs either models or slices; it has neither"
        problems.append(Problem(what, table.where, "models: [{model: ...}, ...]"))
    models = tuple(m for node in _read_list(table, "models", problems) if (m := _read_input(node, False, problems)))
    return models, tuple(s for node in _read_list(table, "slices", problems) if (s := _read_slice(node, problems)))


def _read_modules(root: Table, problems: list[Problem]) -> tuple[Module, ...]:
    if not _has(root, "modules"):
        return ()
    node = root.entries["modules"].node
    if not isinstance(node, Table):
        problems.append(Problem("modules must be a mapping", node.where, "modules: {text_decoder: {models: [...]}}"))
        return ()
    modules = []
    for name, entry in node.entries.items():
        if not isinstance(entry.node, Table):
            problems.append(Problem(f'module "{name}" must be a mapping', entry.where, "models: [{model: ...}, ...]"))
            continue
        _check_keys(entry.node, "a module", problems)
        models, slices = _read_members(entry.node, f'module "{name}"', ("models", "slices"), problems)
        modules.append(Module(name, models, slices, _read_parameters(entry.node, problems), entry.where))
    return tuple(modules)


def _has(table: Table, key: str) -> bool:
    """Tell if a key is given; null counts as absent."""
    entry = table.entries.get(key)
    return entry is not None and not (isinstance(entry.node, Leaf) and entry.node.value is None)


def _holds(table: Table, key: str) -> bool:
    """Tell if a key is given and holds more than an empty list."""
    return _has(table, key) and table.entries[key].node != Row((), table.entries[key].node.where)


def _check_keys(table: Table, level: str, problems: list[Problem]) -> None:
    known = _KEYS[level]
    for key, entry in table.entries.items():
        if key in known:
            continue
        if key in _NO_EFFECT:
            problems.append(Problem(f"{key} has no effect", entry.where, "remove it", True))
            continue
        hint = suggest_name(key, known, "keys here")
        if hint.startswith("known") and not isinstance(entry.node, Table):
            hint += f"; a parameter of the method goes under parameters: {{{key}: ...}}"
        problems.append(Problem(f'unknown key "{key}" in {level}', entry.where, hint, True))


def _read_name(root: Table, problems: list[Problem]) -> str | None:
    if not _has(root, "name"):
        return None
    node = root.entries["name"].node
    if isinstance(node, Leaf) and node.text.strip():
        return node.text.strip()
    problems.append(Problem("name must be one name", node.where, "name: my-stage"))
    return None


def _read_method(root: Table, problems: list[Problem]) -> str:
    if not _has(root, "merge_method"):
        problems.append(Problem("merge_method is missing", root.where, "merge_method: slerp, ties, linear, ..."))
        return ""
    node = root.entries["merge_method"].node
    if not isinstance(node, Leaf):
        problems.append(Problem("merge_method must be one name", node.where))
        return ""
    return node.text.strip()


def _read_list(root: Table, key: str, problems: list[Problem]) -> tuple[Node, ...]:
    if not _has(root, key):
        return ()
    node = root.entries[key].node
    if not isinstance(node, Row):
        problems.append(Problem(f"{key} must be a list", node.where, "begin each entry with a dash"))
        return ()
    return node.items


def _read_base(table: Table, problems: list[Problem]) -> ModelRef | None:
    return read_reference(table.entries["base_model"].node, problems) if _has(table, "base_model") else None


def _read_parameters(table: Table, problems: list[Problem]) -> dict[str, Setting]:
    return read_settings(table.entries["parameters"].node, problems) if _has(table, "parameters") else {}


def _read_dtype(root: Table, key: str, problems: list[Problem]) -> DType | None:
    if not _has(root, key):
        return None
    node = root.entries[key].node
    word = node.text.strip() if isinstance(node, Leaf) else ""
    dtype = BY_NAME.get(word.removeprefix("torch."))
    if dtype is None or not dtype.mergeable:
        names = [name for name, known in BY_NAME.items() if known.mergeable]
        problems.append(Problem(f'{key} "{word}" is not a type that weights can be merged in', node.where,
                                f"one of {', '.join(names)}"))  # fmt: skip
        return None
    return dtype


def _read_filters(root: Table, key: str, problems: list[Problem]) -> tuple[Filter, ...]:
    """A list of parts of tensor names, or one of them."""
    if not _has(root, key):
        return ()
    node = root.entries[key].node
    filters = []
    for item in node.items if isinstance(node, Row) else (node,):
        if isinstance(item, Leaf) and item.text.strip():
            filters.append(Filter(item.text.strip(), item.where))
        else:
            problems.append(Problem(f"{key} lists parts of tensor names", item.where, f"{key}: [self_attn, mlp]"))
    return tuple(filters)


def _read_slice(node: Node, problems: list[Problem]) -> Slice | None:
    if not isinstance(node, Table) or not _has(node, "sources"):
        problems.append(Problem("a slice needs sources", node.where, "- sources: [{model: ..., layer_range: [0, 16]}]"))
        return None
    _check_keys(node, "a slice", problems)
    sources = _read_list(node, "sources", problems)
    if not sources and isinstance(node.entries["sources"].node, Row):
        problems.append(Problem("a slice without sources", node.entries["sources"].node.where, "name a model"))
    return Slice(
        sources=tuple(entry for item in sources if (entry := _read_input(item, True, problems))),
        base_model=_read_base(node, problems),
        parameters=_read_parameters(node, problems),
        where=node.where,
    )


def _read_input(node: Node, in_slice: bool, problems: list[Problem]) -> Input | None:
    level = "a slice source" if in_slice else "a model"
    if not isinstance(node, Table):
        word = node.text if isinstance(node, Leaf) else "..."
        problems.append(Problem(f"{level} must be a mapping", node.where, f"- model: {word}"))
        return None
    _check_keys(node, level, problems)
    layers = _read_range(node, problems) if in_slice else None
    parameters = _read_parameters(node, problems)
    if not _has(node, "model"):
        problems.append(Problem(f"{level} without model", node.where, "model: path/to/folder"))
        return None
    model = read_reference(node.entries["model"].node, problems)
    if model is None or (in_slice and layers is None):
        return None
    where: Location = node.entries["layer_range"].node.where if in_slice else node.where
    return Input(model, parameters, layers, where)


def _read_range(table: Table, problems: list[Problem]) -> tuple[int, int] | None:
    if not _has(table, "layer_range"):
        problems.append(Problem("a slice source without layer_range", table.where, "layer_range: [first, end]"))
        return None
    node = table.entries["layer_range"].node
    numbers = [_read_integer(item) for item in node.items] if isinstance(node, Row) else []
    if len(numbers) != 2 or numbers[0] is None or numbers[1] is None:
        problems.append(
            Problem("layer_range must be two whole numbers", node.where, "[first, end], counted from 0, without end")
        )
        return None
    first, end = numbers[0], numbers[1]
    if first < 0 or end <= first:
        what = "is negative" if first < 0 or end < 0 else "is reversed" if end < first else "holds no layer"
        problems.append(
            Problem(f"layer_range [{first}, {end}] {what}", node.where, "[first, end] with 0 <= first < end")
        )
        return None
    return first, end


def _read_integer(node: Node) -> int | None:
    if not isinstance(node, Leaf) or node.value is None or isinstance(node.value, bool):
        return None
    try:
        number = float(node.value)
        return int(number) if number == int(number) else None
    except (ValueError, OverflowError):
        return None
