"""One vocabulary for all models of a recipe: rows of their embeddings and heads are put in its order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pymerge.checkpoint import Checkpoint, Source
from pymerge.checkpoint.names import HEADS, VOCABULARY_BIASES, last_part
from pymerge.checkpoint.renaming import align_names
from pymerge.checkpoint.sources import Rows
from pymerge.config.values import MergeConfig, ModelRef
from pymerge.errors import PymergeError, ShapeError
from pymerge.plan.findings import Findings
from pymerge.plan.sources import Model, describe_model

if TYPE_CHECKING:
    from pymerge.vocabulary import Vocabulary

__all__ = ["Arranged", "arrange_vocabulary"]


@dataclass(frozen=True, slots=True)
class Arranged:
    """Models whose rows are in one order.

    Attributes:
        models: as they were, but for tensors along the vocabulary.
        vocabulary: None if the recipe says nothing of it.
        lenders: checkpoints that are not merged, but give rows.
    """

    models: Mapping[ModelRef, Model]
    vocabulary: Vocabulary | None = None
    lenders: tuple[Checkpoint, ...] = ()


def arrange_vocabulary(
    config: MergeConfig,
    models: Mapping[ModelRef, Model],
    opener: Callable[[ModelRef], Checkpoint],
    findings: Findings,
) -> Arranged:
    """Make the vocabulary that a recipe asks for, and have every model's rows follow it.

    `opener` opens models that are not merged.

    What cannot work is added to the findings; then nothing is changed.
    """
    if config.tokenizer is None and config.chat_template is None:
        return Arranged(models)
    # Not before it is asked for: most merges copy a tokenizer.
    from pymerge.vocabulary import make_vocabulary

    donor = models[config.base_model] if config.base_model else next(iter(models.values()))
    others = _open_others(config, models, donor, opener, findings)
    if findings.fatal:
        return Arranged(models)
    everyone = {**models, **others}
    try:
        made = make_vocabulary(
            config,
            {ref: model.checkpoint.folder for ref, model in models.items()},
            {ref: rows for ref, model in everyone.items() if (rows := _count_rows(model))},
            {ref: model.checkpoint.folder for ref, model in others.items()},
        )
    except PymergeError as error:
        findings.take(error)
        return Arranged(models)
    if made is None:
        return Arranged(models)
    for remark in made.remarks:
        findings.warn(remark)
    if findings.fatal:
        return Arranged(models)
    arranged = {ref: _arrange(ref, models[ref], made, everyone, findings) for ref in models}
    lending = {part for choice, parts in made.choices.values() for part in parts}
    return Arranged(arranged, made, tuple(other.checkpoint for ref, other in others.items() if ref in lending))


def _open_others(
    config: MergeConfig,
    models: Mapping[ModelRef, Model],
    donor: Model,
    opener: Callable[[ModelRef], Checkpoint],
    findings: Findings,
) -> dict[ModelRef, Model]:
    """Models that only the tokenizer setting names."""
    named = config.tokenizer.references if config.tokenizer else ()
    found: dict[ModelRef, Model] = {}
    for ref in (ref for ref in named if ref not in models):
        try:
            found[ref] = describe_model(align_names(opener(ref), donor.checkpoint))
        except PymergeError as error:
            findings.take(error, ref.where)
    return found


def _count_rows(model: Model) -> int:
    name = model.architecture.embedding
    return model.checkpoint.tensors[name].shape[0] if name else 0


def _arrange(
    ref: ModelRef, model: Model, vocabulary: Vocabulary, everyone: Mapping[ModelRef, Model], findings: Findings
) -> Model:
    if ref not in vocabulary.choices:
        return model
    tensors = dict(model.checkpoint.tensors)
    for name in _list_along(model):
        tensors[name] = _put_together(ref, name, tensors[name], vocabulary, everyone, findings)
    embedding, stand_in = model.architecture.embedding, None
    head = next((other.architecture.head for other in everyone.values() if other.architecture.head), None)
    if head is not None and head not in tensors and embedding:
        # Where rows come from other models, they are those of their heads.
        own = model.checkpoint.tensors[embedding]
        stand_in = _put_together(ref, head, own, vocabulary, everyone, findings)
    return replace(model, checkpoint=replace(model.checkpoint, tensors=tensors), stand_in=stand_in)


def _put_together(
    ref: ModelRef,
    name: str,
    own: Source,
    vocabulary: Vocabulary,
    everyone: Mapping[ModelRef, Model],
    findings: Findings,
) -> Source:
    """The tensor `name` of a model, which is `own`, with the vocabulary's rows."""
    choice, parts = vocabulary.choices[ref]
    matrices = [own]
    for part in parts[1:]:
        found = _find_alike(everyone[part], name)
        if found is None or found.shape[1:] != own.shape[1:]:
            what = f'"{part}" has none' if found is None else f'that of "{part}" is not equally wide'
            findings.add(f'{name} of "{ref}" needs rows of other models, and {what}', ref.where, error=ShapeError)
            return own
        matrices.append(found)
    for part, matrix in zip(parts, matrices, strict=True):
        if matrix.shape[0] != _count_rows(everyone[part]):
            message = f'"{part}": {name} has {matrix.shape[0]} rows, the token embedding {_count_rows(everyone[part])}'
            findings.add(message, part.where, "its tokens cannot be told apart; remove tokenizer", error=ShapeError)
            return own
    return Rows(own.name, tuple(matrices), choice)


def _list_along(model: Model) -> list[str]:
    """Names of the tensors whose first dim is the vocabulary: embedding, head, and the head's biases."""
    architecture = model.architecture
    matrices = [name for name in (architecture.embedding, architecture.head) if name]
    rows = _count_rows(model)
    biases = [
        name
        for name, source in model.checkpoint.tensors.items()
        if name not in architecture.layers
        and source.shape == (rows,)
        and (last_part(name) in HEADS or last_part(name) in VOCABULARY_BIASES)
    ]
    return [*dict.fromkeys(matrices), *biases]


def _find_alike(model: Model, name: str) -> Source | None:
    """Another model's tensor of that role; the embedding stands in for the head of a model that is tied."""
    tensors, architecture = model.checkpoint.tensors, model.architecture
    if name not in tensors and architecture.embedding and last_part(name) in HEADS:
        return tensors[architecture.embedding]
    return tensors.get(name)
