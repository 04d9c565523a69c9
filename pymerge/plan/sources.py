"""The models of a recipe, opened, and grouped as the method sees them: base, inputs, slices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pymerge.checkpoint import Architecture, Checkpoint, Source, infer_architecture, open_checkpoint
from pymerge.checkpoint.experts import align_experts
from pymerge.checkpoint.kinds import is_gguf
from pymerge.checkpoint.renaming import align_names
from pymerge.config.values import Input, MergeConfig, ModelRef, Setting
from pymerge.errors import Location, PymergeError
from pymerge.methods.base import BaseRule, Method
from pymerge.plan.consistency import check_model
from pymerge.plan.findings import Findings

__all__ = ["Group", "Model", "describe_model", "group_sources", "list_references", "open_models"]


@dataclass(frozen=True, slots=True)
class Model:
    """An opened checkpoint; `members[i]` are the tensors of layer i of its largest stack.

    `stand_in` is what serves as its output head where others have one and it has none; None: its embedding.
    """

    checkpoint: Checkpoint
    architecture: Architecture
    members: tuple[Mapping[str, Source], ...]
    stand_in: Source | None = None

    @property
    def label(self) -> str:
        """The model as the recipe names it."""
        return str(self.checkpoint.ref)


@dataclass(frozen=True, slots=True)
class Group:
    """Sources that are merged with each other: a slice, or all models of the recipe.

    Attributes:
        base: position of the base among `sources`; None if the method has none here.
        parameters: those of the slice; outer: those of the module.
    """

    sources: tuple[Input, ...]
    base: int | None
    parameters: Mapping[str, Setting]
    where: Location | None
    outer: Mapping[str, Setting] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[int, ...]:
        """Positions of the sources besides the base."""
        return tuple(i for i in range(len(self.sources)) if i != self.base)


def list_references(config: MergeConfig) -> list[ModelRef]:
    """Every model of a recipe once, in the order it is first listed; a base that is not listed last."""
    return list(dict.fromkeys([*(entry.model for entry in config.inputs), *config.bases]))


def open_models(
    config: MergeConfig, findings: Findings, opener: Callable[[ModelRef], Checkpoint] = open_checkpoint
) -> dict[ModelRef, Model]:
    """Open all models of a recipe; those that cannot be opened are reported and left out.

    Tensors are keyed as the donor (base, or first model) names them.
    """
    opened: dict[ModelRef, Checkpoint] = {}
    for ref in list_references(config):
        try:
            opened[ref] = opener(ref)
        except PymergeError as error:
            findings.take(error, ref.where)
        else:
            for note in opened[ref].notes:
                findings.warn(note, ref.where)
    if not opened:
        return {}
    if any(is_gguf(checkpoint.folder) for checkpoint in opened.values()):
        from pymerge.checkpoint.gguf import name_like

        opened = {ref: name_like(checkpoint, opened.values()) for ref, checkpoint in opened.items()}
    _warn_of_aliases(opened, findings)
    donor = opened.get(config.base_model) if config.base_model else None
    like = donor or next(iter(opened.values()))
    models = {
        ref: describe_model(align_experts(align_names(checkpoint, like), like)) for ref, checkpoint in opened.items()
    }
    for model in models.values():
        check_model(model.checkpoint, model.architecture, findings)
    return models


def _warn_of_aliases(opened: Mapping[ModelRef, Checkpoint], findings: Findings) -> None:
    """Warn of one model under two names: a base, for example, is told from the models by its name."""
    named: dict[tuple[Path, ...], ModelRef] = {}
    for ref, checkpoint in opened.items():
        if not checkpoint.files:
            # What an earlier stage makes is in no folder.
            continue
        # An adapter's file is among them: with another adapter it is another model.
        first = named.setdefault(tuple(path for path, *_ in checkpoint.files), ref)
        if first is not ref:
            findings.warn(f'"{ref}" and "{first}" are the same model', ref.where, "name it one way throughout")


def describe_model(checkpoint: Checkpoint) -> Model:
    """A checkpoint with its parts."""
    architecture = infer_architecture(checkpoint)
    depth = architecture.stacks[0].count if architecture.stacks else 0
    members: list[dict[str, Source]] = [{} for _ in range(depth)]
    for name, layer in architecture.layers.items():
        if layer.stack == 0:
            members[layer.index][layer.rest] = checkpoint.tensors[name]
    return Model(checkpoint, architecture, tuple(members))


def group_sources(config: MergeConfig, method: Method, findings: Findings) -> tuple[Group, ...]:
    """Bring both forms of a recipe into one, and check base and number of models of each group."""
    groups = tuple(_form_groups(config, method, findings))
    for group in groups:
        _check_arity(group, method, findings)
        listed = Counter(str(entry.model) for entry in group.sources)
        for name in (name for name, times in listed.items() if times > 1):
            findings.warn(f'"{name}" is listed more than once here; each counts as an input of its own', group.where)
    return groups


def _form_groups(config: MergeConfig, method: Method, findings: Findings) -> Iterator[Group]:
    if config.models:
        sources = config.models
        base = config.base_model
        listed = [entry.model for entry in sources]
        if base is not None and base not in listed:
            if method.base is BaseRule.SELF:
                findings.add(
                    f'{method.name}: base_model "{base}" is not the model itself',
                    base.where,
                    f"remove base_model; {method.name} has no base",
                )
            else:
                sources = (*sources, Input(base, where=base.where))
        where = config.models[0].where
        yield Group(sources, _find_base(base, sources, where, method, findings), {}, where)
    for piece in config.slices:
        base = piece.base_model or config.base_model
        position = _find_base(base, piece.sources, piece.where, method, findings)
        yield Group(piece.sources, position, piece.parameters, piece.where)


def _find_base(
    base: ModelRef | None, sources: tuple[Input, ...], where: Location | None, method: Method, findings: Findings
) -> int | None:
    """Position of the base among the sources; None where the method treats it as no base."""
    if method.base not in (BaseRule.REQUIRED, BaseRule.OPTIONAL):
        return None
    if base is None:
        if method.base is BaseRule.REQUIRED:
            findings.add(f"{method.name} needs a base_model", where, "base_model: path/to/the/original/model")
        return None
    position = next((i for i, entry in enumerate(sources) if entry.model == base), None)
    if position is None:
        first, end = sources[0].layer_range or (0, 0)
        findings.add(
            f'base_model "{base}" is not among the sources of this slice',
            where,
            f"a base is not added to slices by itself: add - {{model: {base}, layer_range: [{first}, {end}]}}",
        )
    return position


def _check_arity(group: Group, method: Method, findings: Findings) -> None:
    count = len(group.inputs)
    # Without its base, which is reported already, the number means little.
    if method.base is BaseRule.REQUIRED and group.base is None:
        return
    least, most = method.minimum, method.maximum
    if count >= least and (most is None or count <= most):
        return
    wanted = f"exactly {least}" if least == most else f"at least {least}" if count < least else f"at most {most}"
    besides = " besides the base" if group.base is not None else ""
    noun = "model" if wanted.endswith(" 1") else "models"
    findings.add(
        f"{method.name} takes {wanted} {noun}{besides}; here are {count}",
        group.where,
        (count > least and method.instead) or "run pymerge methods to see what each method takes",
    )
