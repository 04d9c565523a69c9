"""Which stored tensors make up each output tensor: layers put in order, loose tensors assigned.

Tensors outside the layers belong to the first slice if they stand before the layers, to the last
one if they stand after; in each model. Their position for gradients is 0 on both sides, since
published recipes depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pymerge.checkpoint import Source
from pymerge.checkpoint.names import find_side
from pymerge.config.values import ModelRef
from pymerge.plan.sources import Group, Model

__all__ = ["Part", "assemble_models", "assemble_slices"]


@dataclass(frozen=True, slots=True)
class Part:
    """One output tensor before its parameters are known.

    Attributes:
        t: position for gradients.
        group: index of the group it belongs to.
        names: per source of the group, the name that filters of that model are tested against.
        inputs: per source of the group, its tensor, or None if the model lacks it.
        layer: the output's layer that it belongs to, whatever the name; empty outside of all layers.
        kept: True if the one input is copied, whatever the method.
        borrowed: True if an embedding stands in for the output head of some model.
    """

    name: str
    t: float
    group: int
    names: tuple[str, ...]
    inputs: tuple[Source | None, ...]
    layer: str = ""
    borrowed: bool = False
    kept: bool = False


def assemble_models(group: Group, models: Mapping[ModelRef, Model]) -> list[Part]:
    """Match whole models name by name; a tensor's t is its place in its own stack."""
    members = [models[entry.model] for entry in group.sources]
    names = sorted({name for model in members for name in model.checkpoint.tensors})
    head = _find_head(models)
    if head is not None and head not in names:
        names.append(head)
    parts = []
    for name in names:
        inputs = tuple(model.checkpoint.tensors.get(name) for model in members)
        owner = next((model for model, stored in zip(members, inputs, strict=True) if stored), members[0])
        layer = owner.architecture.layers.get(name)
        t = _position(layer.index, owner.architecture.stacks[layer.stack].count) if layer else 0.0
        place = f"{layer.stack}.{layer.index}" if layer else ""
        parts.append(_lend_embedding(Part(name, t, 0, (name,) * len(inputs), inputs, place), members, head))
    return parts


def assemble_slices(groups: Sequence[Group], models: Mapping[ModelRef, Model], donor: Model) -> list[Part]:
    """Put the layers of all slices in order; names are the donor's. Ranges must be checked before."""
    parts = list(_loose_parts(groups, 0, "before", models))
    place = 0
    stack = donor.architecture.stacks[0]
    for number, group in enumerate(groups):
        members = [models[entry.model] for entry in group.sources]
        starts = [entry.layer_range[0] if entry.layer_range else 0 for entry in group.sources]
        length = _length(group)
        for step in range(length):
            t = _position(step, length)
            layers = [model.members[start + step] for model, start in zip(members, starts, strict=True)]
            for rest in dict.fromkeys(rest for layer in layers for rest in layer):
                names = tuple(
                    model.architecture.stacks[0].name(start + step, rest)
                    for model, start in zip(members, starts, strict=True)
                )
                inputs = tuple(layer.get(rest) for layer in layers)
                parts.append(Part(stack.name(place, rest), t, number, names, inputs, str(place)))
            place += 1
    parts.extend(_loose_parts(groups, len(groups) - 1, "after", models))
    return parts


def _position(index: int, count: int) -> float:
    """Position of a layer in [0, 1]; a single layer is at 1, as in the established tool."""
    return index / (count - 1) if count > 1 else 1.0


def _length(group: Group) -> int:
    first, end = group.sources[0].layer_range or (0, 0)
    return end - first


def _loose_parts(groups: Sequence[Group], number: int, side: str, models: Mapping[ModelRef, Model]) -> Iterator[Part]:
    members = [models[entry.model] for entry in groups[number].sources]
    names = dict.fromkeys(
        name
        for model in members
        for name in model.checkpoint.tensors
        if name not in model.architecture.layers and find_side(name) == side
    )
    head = _find_head(models)
    if head is not None and side == "after":
        names[head] = None
    for name in names:
        inputs = tuple(model.checkpoint.tensors.get(name) for model in members)
        yield _lend_embedding(Part(name, 0.0, number, (name,) * len(inputs), inputs), members, head)


def _find_head(models: Mapping[ModelRef, Model]) -> str | None:
    """Name of the output head, None if no model of the recipe has one (all tied)."""
    return next((model.architecture.head for model in models.values() if model.architecture.head), None)


def _lend_embedding(part: Part, members: Sequence[Model], head: str | None) -> Part:
    """Where some models have an output head, the embedding is the head of those that are tied."""
    if part.name != head or all(part.inputs):
        return part
    inputs = tuple(
        stored or model.stand_in or (model.checkpoint.tensors[name] if name else None)
        for stored, model, name in zip(
            part.inputs, members, (model.architecture.embedding for model in members), strict=True
        )
    )
    return replace(part, inputs=inputs, borrowed=True)
