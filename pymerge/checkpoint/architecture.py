"""The shape of a model, inferred from tensor names and config.json; no list of architectures.

Layers are what is named `<prefix>.<index>.<rest>` with indices 0..L-1, where config.json counts L
layers. The outermost index is the layer; experts and other nested indices are part of the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pymerge.checkpoint.names import EMBEDDINGS, HEADS, LAYER_COUNTS, last_part
from pymerge.checkpoint.values import Checkpoint

__all__ = ["Architecture", "Gap", "Layer", "Stack", "find_layer_counts", "infer_architecture"]

#: A run of numbered modules counts as a stack without a count in config.json if its members have
#: at least so many tensors: towers have a dozen, sequential projectors one or two.
_TENSORS_OF_A_LAYER = 4


@dataclass(frozen=True, slots=True)
class Layer:
    """Where a tensor stands: `<stack prefix>.<index>.<rest>`."""

    stack: int
    index: int
    rest: str


@dataclass(frozen=True, slots=True)
class Stack:
    """Layers of one kind; `keys` are the paths in config.json that count them."""

    prefix: str
    count: int
    keys: tuple[tuple[str, ...], ...]

    def name(self, index: int, rest: str) -> str:
        """Name of a tensor of layer `index`."""
        return f"{self.prefix}.{index}.{rest}" if rest else f"{self.prefix}.{index}"


@dataclass(frozen=True, slots=True)
class Gap:
    """Layers that a run of numbered ones lacks: the first of them, and how many there are."""

    prefix: str
    missing: tuple[int, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model's parts.

    Attributes:
        label: class and model type, for comparing models and for messages.
        stacks: the stacks of layers, the largest first.
        layers: tensor name -> place in a stack; all other tensors are loose.
        embedding: the token embedding's name.
        head: the output head's name, None if it has none (tied to the embedding, or no language model).
        obstacle: why layers cannot be sliced; None if they can.
        gaps: layers that are missing between others.
    """

    label: str
    stacks: tuple[Stack, ...]
    layers: Mapping[str, Layer]
    embedding: str | None
    head: str | None
    obstacle: str | None
    gaps: tuple[Gap, ...] = ()


def infer_architecture(checkpoint: Checkpoint) -> Architecture:
    """Find stacks, embedding and head of a checkpoint; never fails, see `obstacle`."""
    groups = _group_by_prefix(checkpoint)
    counts = list(find_layer_counts(checkpoint.config))
    stacks = _find_stacks(groups, counts)
    layers = {
        name: Layer(place, index, rest)
        for place, stack in enumerate(stacks)
        for index, members in groups[stack.prefix].items()
        for name, rest in members.items()
    }
    return Architecture(
        label=_label(checkpoint),
        stacks=stacks,
        layers=layers,
        embedding=_find_role(checkpoint, layers, EMBEDDINGS),
        head=_find_role(checkpoint, layers, HEADS),
        obstacle=_find_obstacle(stacks, groups, counts),
        gaps=tuple(_find_gaps(groups, counts)),
    )


def _label(checkpoint: Checkpoint) -> str:
    """Class name, or model type where there is none; the recipe may override it."""
    if checkpoint.ref.override_architecture:
        return checkpoint.ref.override_architecture
    names = checkpoint.config.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        return names[0]
    return str(checkpoint.config.get("model_type", "unknown"))


_Groups = dict[str, dict[int, dict[str, str]]]
_Counts = list[tuple[tuple[str, ...], int]]


def _group_by_prefix(checkpoint: Checkpoint) -> _Groups:
    """Sort tensors by what stands before their first number: prefix -> index -> name -> rest."""
    groups: _Groups = {}
    for name in checkpoint.tensors:
        parts = name.split(".")
        place = next((i for i, part in enumerate(parts) if part.isdecimal()), 0)
        # A number in front, or with leading zeros, could not be written back by Stack.name.
        if place and str(int(parts[place])) == parts[place]:
            members = groups.setdefault(".".join(parts[:place]), {}).setdefault(int(parts[place]), {})
            members[name] = ".".join(parts[place + 1 :])
    return groups


def find_layer_counts(config: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    for key, value in config.items():
        if key in LAYER_COUNTS and isinstance(value, int) and not isinstance(value, bool):
            yield (*path, key), value
        elif isinstance(value, Mapping) and len(path) < 3:
            yield from find_layer_counts(value, (*path, key))


def _find_stacks(groups: _Groups, counts: _Counts) -> tuple[Stack, ...]:
    stacks = []
    for prefix, members in groups.items():
        count = len(members)
        if max(members) != count - 1:
            continue
        keys = tuple(path for path, value in counts if value == count)
        if keys or (count > 1 and min(len(member) for member in members.values()) >= _TENSORS_OF_A_LAYER):
            stacks.append(Stack(prefix, count, keys))
    return tuple(sorted(stacks, key=lambda stack: -sum(len(member) for member in groups[stack.prefix].values())))


def _find_gaps(groups: _Groups, counts: _Counts) -> Iterator[Gap]:
    """Holes in what has the tensors of layers and is either most of the model or counted by config.json.

    Where numbers are those of modules in a row, some of which have no weights, modules have few tensors.
    """
    sizes = {prefix: sum(map(len, members.values())) for prefix, members in groups.items()}
    most = max(sizes.values(), default=0)
    for prefix, members in groups.items():
        depth, there = max(members) + 1, len(members)
        counted = any(value in (depth, there) for _, value in counts)
        if depth > there and sizes[prefix] >= _TENSORS_OF_A_LAYER * there and (counted or sizes[prefix] == most):
            # The largest number may be any: it is not counted up to.
            missing = tuple(index for index in range(min(depth, 2 * there)) if index not in members)
            yield Gap(prefix, missing, depth - there)


def _find_obstacle(stacks: tuple[Stack, ...], groups: _Groups, counts: _Counts) -> str | None:
    if len(stacks) > 1:
        listed = ", ".join(f"{stack.prefix} ({stack.count})" for stack in stacks)
        return f"the model has several stacks of layers: {listed}"
    said = " and ".join(f"{'.'.join(path)} = {value}" for path, value in counts) or "no number of layers"
    if stacks:
        stack = stacks[0]
        return None if stack.keys else f"{stack.prefix} has {stack.count} layers, config.json says {said}"
    found = ", ".join(f"{prefix} ({len(members)})" for prefix, members in list(groups.items())[:3]) or "none"
    return f"no complete stack of numbered layers (found: {found}; config.json says {said})"


def _find_role(checkpoint: Checkpoint, layers: Mapping[str, Layer], table: tuple[str, ...]) -> str | None:
    """The loose matrix whose module is in `table`; the one with most rows if there are several."""
    # By the checkpoint's names: a tensor may be stored under another one (in an adapter, say).
    found = [
        (stored.shape[0], name)
        for name, stored in checkpoint.tensors.items()
        if last_part(name) in table and name not in layers and len(stored.shape) == 2
    ]
    return max(found, key=lambda each: each[0])[1] if found else None
