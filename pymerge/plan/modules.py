"""The parts of a model that a recipe merges each in its own way: `modules`, and how they are told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pymerge.checkpoint.names import MODULES, REST_OF_MODEL
from pymerge.config.values import MergeConfig, ModelRef
from pymerge.methods.base import Method
from pymerge.plan.assembly import Part, assemble_models, assemble_slices
from pymerge.plan.checks import check_layers, check_seams
from pymerge.plan.findings import Findings
from pymerge.plan.sources import Group, Model, describe_model, group_sources

__all__ = ["Section", "assemble_sections", "check_section_seams", "group_modules", "make_sections"]

#: Top-level names that are shown where a module is not found.
_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Section:
    """What is merged by itself: all of the models, or a module of theirs.

    Attributes:
        models: with the tensors of the section only.
        groups: of the section; `first` is the place of the first of them among all groups.
        sliced: whether layers are put together anew.
    """

    models: Mapping[ModelRef, Model]
    donor: Model
    groups: tuple[Group, ...]
    first: int
    sliced: bool


def group_modules(config: MergeConfig, method: Method, findings: Findings) -> tuple[tuple[Group, ...], ...]:
    """The groups of each module of a recipe, or those of a recipe without modules."""
    if not config.modules:
        return (group_sources(config, method, findings),)
    grouped = []
    for module in config.modules:
        part = replace(config, models=module.models, slices=module.slices, modules=())
        groups = group_sources(part, method, findings)
        grouped.append(tuple(replace(group, outer=module.parameters) for group in groups))
    return tuple(grouped)


def make_sections(
    config: MergeConfig,
    grouped: Sequence[tuple[Group, ...]],
    models: Mapping[ModelRef, Model],
    donor: Model,
    findings: Findings,
) -> tuple[Section, ...]:
    """Tell the models' parts from each other; what cannot be found is reported."""
    if not config.modules:
        return (Section(models, donor, grouped[0], 0, bool(config.slices)),)
    names = [module.name for module in config.modules]
    sections: list[Section] = []
    first = 0
    for module, groups in zip(config.modules, grouped, strict=True):
        own = {ref: _restrict(model, module.name, names) for ref, model in models.items()}
        named = {entry.model for group in groups for entry in group.sources} & own.keys()
        for ref in named:
            if not own[ref].checkpoint.tensors:
                tops = sorted({name.split(".")[0] for name in models[ref].checkpoint.tensors})
                findings.add(
                    f'"{ref}" has no module "{module.name}"',
                    module.where,
                    f"a module is one of {', '.join(MODULES)}, {REST_OF_MODEL}, or what its tensors' names begin with: "
                    + ", ".join(tops[:_SHOWN]),
                )
        sections.append(Section(own, own[donor.checkpoint.ref], groups, first, bool(module.slices)))
        first += len(groups)
    return tuple(sections)


def assemble_sections(
    sections: Sequence[Section], config: MergeConfig, donor: Model, findings: Findings
) -> list[Part] | None:
    """The output's tensors, section by section; None if layers do not fit. What no section has is the donor's."""
    # All are looked at: each may have something to say.
    fitting = [check_layers(each.groups, each.models, each.donor, each.sliced, findings) for each in sections]
    if not all(fitting):
        return None
    parts: list[Part] = []
    for each in sections:
        if each.sliced:
            made = assemble_slices(each.groups, each.models, each.donor)
        else:
            made = assemble_models(each.groups[0], each.models)
        parts += [replace(part, group=part.group + each.first) for part in made]
    if config.modules:
        parts += _keep_rest(sections, donor, parts, config, findings)
    return parts


def check_section_seams(sections: Sequence[Section], findings: Findings) -> None:
    """Check that the layers of slices fit on each other, in every section."""
    for each in sections:
        if each.sliced:
            check_seams(each.groups, each.models, each.donor, findings)


def _keep_rest(
    sections: Sequence[Section], donor: Model, parts: Sequence[Part], config: MergeConfig, findings: Findings
) -> list[Part]:
    """Tensors of the donor that belong to no module of the recipe."""
    covered = {name for each in sections for model in each.models.values() for name in model.checkpoint.tensors}
    covered.update(part.name for part in parts)
    rest = [name for name in donor.checkpoint.tensors if name not in covered]
    if rest:
        findings.warn(
            f'{len(rest)} tensors are in no module of the recipe, "{rest[0]}" among them; "{donor.label}" gives them',
            config.modules[0].where,
        )
    return [Part(name, 0.0, 0, (name,), (donor.checkpoint.tensors[name],), kept=True) for name in rest]


def _restrict(model: Model, module: str, names: Sequence[str]) -> Model:
    """A model with the tensors of one module; its layers are then the only ones, and can be sliced."""
    tensors = {
        name: source
        for name, source in model.checkpoint.tensors.items()
        if _find_module(name, names, model.checkpoint.tensors) == module
    }
    made = describe_model(replace(model.checkpoint, tensors=tensors))
    stacks = made.architecture.stacks
    if stacks:
        keys = tuple(key for key in stacks[0].keys if _counts(key, module)) or stacks[0].keys
        stacks = (replace(stacks[0], keys=keys), *stacks[1:])
    return replace(made, architecture=replace(made.architecture, stacks=stacks), stand_in=model.stand_in)


def _counts(key: tuple[str, ...], module: str) -> bool:
    """Whether a key of config.json is about a module, where two have equally many layers."""
    path = ".".join(key)
    other = {"vision_tower": "text", "text_decoder": "vision", "encoder": "decoder", "decoder": "encoder"}.get(module)
    return other is None or other not in path


def _find_module(tensor: str, names: Sequence[str], tensors: Mapping[str, object]) -> str | None:
    """The module of the recipe that a tensor is in: the one with the longest beginning that fits."""
    best, length = None, 0
    for name in names:
        for prefix in MODULES.get(name, (f"{name}.",)):
            if tensor.startswith(prefix) and len(prefix) > length:
                best, length = name, len(prefix)
    if best is not None:
        return best
    if any(tensor.startswith(prefix) for prefixes in MODULES.values() for prefix in prefixes):
        return None
    # A text model whose tensors have no name in front, beside a tower that has one.
    return next((name for name in ("text_decoder", REST_OF_MODEL) if name in names), None)
