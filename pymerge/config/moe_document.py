"""`load_moe`: the document of a mixture of experts -> MoeConfig, with every problem found in one go."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pymerge.config.moe import DRAWN, GATE_MODES, Expert, MoeConfig
from pymerge.config.nodes import Entry, Leaf, Node, Row, Table, compose_trees
from pymerge.config.recipes import read_source
from pymerge.config.references import read_reference
from pymerge.config.suggestions import suggest_name
from pymerge.config.values import ModelRef
from pymerge.dtypes import BY_NAME, DType
from pymerge.errors import Location, Problem, RecipeError

__all__ = ["load_moe"]

_ALIASES = {"uniform": "uniform_random", "hidden_last": "hidden"}

_KEYS = (
    "base_model", "experts", "gate_mode", "dtype", "experts_per_token", "shared_experts", "architecture",
)  # fmt: skip
_EXPERT_KEYS = ("source_model", "positive_prompts", "negative_prompts", "noise_scale", "residual_scale")
#: Numbers are rounded to float32 sooner or later.
_MOST = 2.0**127


def load_moe(source: str | os.PathLike[str] | Mapping[str, Any], *, lenient: bool = False) -> MoeConfig:
    """Read and check the document of a mixture; no model is looked at.

    Args:
        source: a path, YAML text (anything with a line break), or a mapping of the same shape.
        lenient: keep problems that the established tool would swallow as `warnings`.

    Raises:
        RecipeError: with every problem of the document, in file order.
    """
    text, name = read_source(source)
    problems: list[Problem] = []
    trees = compose_trees(text, name, problems)
    if len(trees) > 1:
        where = trees[1].where
        problems.append(Problem("a mixture of experts is one document", where, "keep one in each file"))
    config = _Reader(problems).read(trees[0], text, name) if trees else None
    problems.sort(key=lambda problem: (problem.where.line, problem.where.column) if problem.where else (0, 0))
    fatal = [problem for problem in problems if not (lenient and problem.tolerable)]
    if fatal or config is None:
        raise RecipeError(fatal)
    return replace(config, warnings=tuple(problems))


class _Reader:
    """Reads trees; problems are appended, reading goes on after each."""

    def __init__(self, problems: list[Problem]) -> None:
        self._problems = problems

    def read(self, root: Node, text: str, name: str) -> MoeConfig | None:
        if not isinstance(root, Table):
            self._add("a mixture is a mapping of keys to values", root.where, "base_model: ...")
            return None
        self._check_keys(root, "a mixture", _KEYS)
        base = self._read_model(root, "base_model", "a mixture")
        experts = self._read_experts(root, "experts")
        shared = self._read_experts(root, "shared_experts")
        if not experts and not self._failed(root, "experts"):
            self._add("experts are missing", root.where, "experts: [{source_model: ..., positive_prompts: [...]}, ...]")
        if base is None:
            return None
        config = MoeConfig(
            base_model=base,
            experts=experts,
            shared=shared,
            gate_mode=self._read_gate_mode(root),
            dtype=self._read_dtype(root),
            per_token=self._read_count(root),
            architecture=self._read_word(root, "architecture"),
            text=text,
            name=name,
            gate_where=_place(root, "gate_mode"),
            count_where=_place(root, "experts_per_token"),
            kind_where=_place(root, "architecture"),
        )
        self._check_counts(config, root)
        self._check_prompts(config)
        return config

    def _check_counts(self, config: MoeConfig, root: Table) -> None:
        if config.experts and config.per_token > len(config.experts):
            self._add(
                f"experts_per_token is {config.per_token}, and there are {len(config.experts)} experts",
                config.count_where or root.where,
                "name more experts, or give a lower experts_per_token",
            )

    def _check_prompts(self, config: MoeConfig) -> None:
        if config.gate_mode in DRAWN:
            return
        for expert in config.everyone:
            if not expert.positive:
                hint = f"positive_prompts: [...]; gate_mode {' and '.join(DRAWN)} need none"
                self._add(f'the expert "{expert.model}" has no positive_prompts', expert.where, hint)
        said = {(expert.positive, expert.negative) for expert in config.experts}
        if len(config.experts) > 1 and len(said) == 1 and config.experts[0].positive:
            hint = "give each prompts of what it is for, or gate_mode: random"
            self._add(
                "all experts have the same prompts, so routers cannot tell them apart", config.experts[0].where, hint
            )

    def _read_experts(self, root: Table, key: str) -> tuple[Expert, ...]:
        node = _get(root, key)
        if node is None:
            return ()
        if not isinstance(node, Row):
            self._add(f"{key} must be a list", node.where, "begin each entry with a dash")
            return ()
        return tuple(expert for item in node.items if (expert := self._read_expert(item)))

    def _read_expert(self, node: Node) -> Expert | None:
        if not isinstance(node, Table):
            word = node.text if isinstance(node, Leaf) else "..."
            self._add("an expert must be a mapping", node.where, f"- source_model: {word}")
            return None
        self._check_keys(node, "an expert", _EXPERT_KEYS)
        model = self._read_model(node, "source_model", "an expert")
        noise, residual = (self._read_number(node, key) for key in ("noise_scale", "residual_scale"))
        positive, negative = (self._read_prompts(node, key) for key in ("positive_prompts", "negative_prompts"))
        if model is None:
            return None
        return Expert(model, positive, negative, noise or 0.0, 1.0 if residual is None else residual, node.where)

    def _read_model(self, table: Table, key: str, level: str) -> ModelRef | None:
        node = _get(table, key)
        if node is None:
            self._add(f"{level} without {key}", table.where, f"{key}: path/to/folder")
            return None
        return read_reference(node, self._problems)

    def _read_prompts(self, table: Table, key: str) -> tuple[str, ...]:
        node = _get(table, key)
        prompts = []
        for item in () if node is None else node.items if isinstance(node, Row) else (node,):
            if isinstance(item, Leaf) and item.value is not None and item.text:
                prompts.append(item.text)
            else:
                self._add(f"{key} lists texts that are not empty", item.where, f"{key}: [write a program, ...]")
        return tuple(prompts)

    def _read_number(self, table: Table, key: str) -> float | None:
        node = _get(table, key)
        if node is None:
            return None
        try:
            # YAML reads 1e-5 (no dot) as text.
            value = node.value if isinstance(node, Leaf) else None
            number = float(value) if isinstance(value, (str, float, int)) and not isinstance(value, bool) else math.nan
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if abs(number) <= _MOST:
            return number
        self._add(f"{key} must be a number", node.where, f"{key}: 0.1")
        return None

    def _read_count(self, root: Table) -> int:
        number = self._read_number(root, "experts_per_token")
        if number is None:
            return 2
        if number >= 1 and number == int(number):
            return int(number)
        where = root.entries["experts_per_token"].node.where
        self._add(f"experts_per_token = {number:g} must be a whole number, at least 1", where, "experts_per_token: 2")
        return 1

    def _read_gate_mode(self, root: Table) -> str:
        word = self._read_word(root, "gate_mode")
        mode = "hidden" if word is None else _ALIASES.get(word, word)
        if mode not in GATE_MODES:
            hint = suggest_name(mode, (*GATE_MODES, *_ALIASES), "modes")
            self._add(f'there is no gate_mode "{mode}"', _place(root, "gate_mode"), hint)
        return mode

    def _read_dtype(self, root: Table) -> DType | None:
        word = self._read_word(root, "dtype")
        dtype = None if word is None else BY_NAME.get(word.removeprefix("torch."))
        if word is not None and (dtype is None or not dtype.mergeable):
            names = ", ".join(name for name, known in BY_NAME.items() if known.mergeable)
            self._add(f'dtype "{word}" is not a type that weights can be stored in', _place(root, "dtype"), names)
            return None
        return dtype

    def _read_word(self, root: Table, key: str) -> str | None:
        node = _get(root, key)
        if node is None:
            return None
        if isinstance(node, Leaf) and node.text.strip():
            return node.text.strip()
        self._add(f"{key} must be one name", node.where)
        return None

    def _check_keys(self, table: Table, level: str, known: tuple[str, ...]) -> None:
        for key, entry in table.entries.items():
            if key not in known:
                hint = suggest_name(key, known, "keys here")
                self._add(f'unknown key "{key}" in {level}', entry.where, hint, tolerable=True)

    def _failed(self, root: Table, key: str) -> bool:
        """Whether a problem says already what is wrong with a key's value."""
        node = _get(root, key)
        return node is not None and node != Row((), node.where)

    def _add(self, message: str, where: Location | None, hint: str | None = None, *, tolerable: bool = False) -> None:
        self._problems.append(Problem(message, where, hint, tolerable))


def _get(table: Table, key: str) -> Node | None:
    """The value of a key; null counts as absent."""
    entry: Entry | None = table.entries.get(key)
    if entry is None or (isinstance(entry.node, Leaf) and entry.node.value is None):
        return None
    return entry.node


def _place(table: Table, key: str) -> Location | None:
    return table.entries[key].node.where if key in table.entries else None
