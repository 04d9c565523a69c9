"""Recipes of several documents: each a merge of its own, whose name later ones use as a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import yaml

from pymerge.config.values import MergeConfig, ModelRef
from pymerge.dtypes import BY_NAME
from pymerge.errors import Problem

__all__ = ["iterate_references", "link_stages", "take_stage"]


def link_stages(documents: Sequence[MergeConfig], problems: list[Problem]) -> MergeConfig | None:
    """Find the document that makes the result, and the order in which those before it are made.

    Returns:
        It, with its `stages`; None, with problems added, if that cannot be told.
    """
    if len(documents) < 2:
        return documents[0] if documents else None
    named = _by_name(documents, problems)
    result = _find_result(documents, named, problems)
    if result is None:
        return None
    order: list[MergeConfig] = []
    if not _visit(result, named, order, [], problems):
        return None
    for document in documents:
        if document not in order:
            problems.append(
                Problem(f'the stage "{document.stage}" is not used by the result', document.where, "remove it", True)
            )
    return replace(result, stages=tuple(order[:-1]))


def take_stage(config: MergeConfig, stage: MergeConfig) -> MergeConfig:
    """The recipe that has a stage as its result, in float32 (float64 if that is its type), as later ones read it."""
    wide = BY_NAME["float64" if BY_NAME["float64"] in (stage.dtype, stage.out_dtype) else "float32"]
    order: list[MergeConfig] = []
    _visit(stage, {str(each.stage): each for each in config.stages}, order, [], [])
    names = [each.stage for each in order]
    documents = [
        each for each in yaml.safe_load_all(config.text) if isinstance(each, dict) and each.get("name") in names
    ]
    for document in documents:
        if document["name"] == stage.stage:
            document["out_dtype"] = wide.name
    text = yaml.safe_dump_all(documents, sort_keys=False)
    return replace(stage, stages=tuple(order[:-1]), out_dtype=wide, text=text)


def iterate_references(config: MergeConfig) -> Iterator[ModelRef]:
    """Every model that a document names, as often as it does, its tokenizer's included."""
    yield from (entry.model for entry in config.inputs)
    yield from config.bases
    yield from config.tokenizer.references if config.tokenizer else ()


def _by_name(documents: Sequence[MergeConfig], problems: list[Problem]) -> dict[str, MergeConfig]:
    named: dict[str, MergeConfig] = {}
    for document in documents:
        if document.stage is None:
            continue
        first = named.setdefault(document.stage, document)
        if first is not document:
            problems.append(Problem(f'two stages are called "{document.stage}"', document.where, "rename one"))
    return named


def _find_result(
    documents: Sequence[MergeConfig], named: dict[str, MergeConfig], problems: list[Problem]
) -> MergeConfig | None:
    """The document without a name; if all have one, the only one that no other uses."""
    nameless = [document for document in documents if document.stage is None]
    if len(nameless) > 1:
        hint = "the result has no name, all stages before it have one: name: ..."
        problems.append(Problem("two documents have no name", nameless[1].where, hint))
        return None
    if nameless:
        return nameless[0]
    used = {ref.path for document in documents for ref in iterate_references(document)}
    last = [document for document in documents if document.stage not in used]
    if len(last) == 1:
        return last[0]
    what = f"{len(last)} stages are used by no other" if last else "every stage is used by another"
    problems.append(Problem(f"{what}: which is the result?", documents[-1].where, "remove its name"))
    return None


def _visit(
    document: MergeConfig,
    named: dict[str, MergeConfig],
    order: list[MergeConfig],
    path: list[MergeConfig],
    problems: list[Problem],
) -> bool:
    """Append a document after all that it needs; False if they need each other."""
    if document in order:
        return True
    if document in path:
        circle = " -> ".join(f'"{each.stage}"' for each in [*path[path.index(document) :], document])
        problems.append(Problem(f"stages need each other: {circle}", document.where, "break the circle"))
        return False
    for ref in iterate_references(document):
        stage = named.get(ref.path)
        if stage is not None and not _visit(stage, named, order, [*path, document], problems):
            return False
    order.append(document)
    return True
