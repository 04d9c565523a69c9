"""Checks between models: architectures, depths, layer ranges, and slices that fit on each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pymerge.checkpoint.names import is_buffer
from pymerge.config.values import ModelRef
from pymerge.errors import ShapeError
from pymerge.plan.findings import Findings
from pymerge.plan.sources import Group, Model

__all__ = ["check_architectures", "check_layers", "check_seams"]

Models = Mapping[ModelRef, Model]

_WHOLE = "merge whole models with models: instead"


def check_architectures(models: Models, allow_crimes: bool, findings: Findings) -> None:
    """Refuse to mix architectures unless that is asked for."""
    labels = {model.label: model.architecture.label for model in models.values()}
    if len(set(labels.values())) < 2:
        return
    listed = ", ".join(f'"{name}" {label}' for name, label in labels.items())
    message = f"the models are of different architectures: {listed}"
    where = list(models)[1].where
    if allow_crimes:
        findings.warn(message, where)
    else:
        findings.add(message, where, "--allow-crimes merges them all the same, where names and shapes fit")


def check_layers(groups: Sequence[Group], models: Models, donor: Model, sliced: bool, findings: Findings) -> bool:
    """Check that layer ranges exist and that what is merged has equal numbers of layers.

    Returns:
        True if the layers can be assembled.
    """
    if sliced and donor.architecture.obstacle:
        message = f'"{donor.label}" cannot be sliced: {donor.architecture.obstacle}'
        findings.add(message, donor.checkpoint.ref.where, _WHOLE)
        return False
    check = _check_ranges if sliced else _check_depths
    verdicts = [check(group, models, findings) for group in groups]
    return all(verdicts)


def _check_ranges(group: Group, models: Models, findings: Findings) -> bool:
    fitting = True
    for entry in group.sources:
        model = models[entry.model]
        first, end = entry.layer_range or (0, 0)
        depth = len(model.members)
        if model.architecture.obstacle:
            message = f'"{entry.model}" cannot be sliced: {model.architecture.obstacle}'
            findings.add(message, entry.model.where, _WHOLE)
        elif not 0 <= first < end <= depth:
            message = f'layer_range [{first}, {end}] of "{entry.model}" passes its end: it has {depth} layers'
            findings.add(message, entry.where, f"ranges end at {depth} at most")
        else:
            continue
        fitting = False
    lengths = [end - first for first, end in (entry.layer_range or (0, 0) for entry in group.sources)]
    if len(set(lengths)) > 1:
        message = f"the sources of a slice have different numbers of layers: {', '.join(map(str, lengths))}"
        findings.add(message, group.where, "give all of them layer ranges of one length")
        fitting = False
    return fitting


def _check_depths(group: Group, models: Models, findings: Findings) -> bool:
    depths = {str(entry.model): len(models[entry.model].members) for entry in group.sources}
    if len(set(depths.values())) <= 1:
        return True
    findings.add(
        "the models have different numbers of layers: " + ", ".join(f'"{k}" {v}' for k, v in depths.items()),
        group.where,
        "merge equal numbers of layers with slices: and layer_range",
        error=ShapeError,
    )
    return False


def check_seams(groups: Sequence[Group], models: Models, donor: Model, findings: Findings) -> None:
    """Check that layers of different slices are of one kind: the same tensors, of the same shapes.

    The donor counts as well, for its config.json describes them.
    """
    members = dict.fromkeys(entry.model for group in groups for entry in group.sources)
    first, shapes = donor, _list_shapes(donor)
    for ref in (ref for ref in members if ref != donor.checkpoint.ref):
        model, others = models[ref], _list_shapes(models[ref])
        for lacking, having, missing in (
            (model, first, [rest for rest in shapes if rest not in others]),
            (first, model, [rest for rest in others if rest not in shapes]),
        ):
            if missing:
                findings.add(
                    f'layers of "{having.label}" have tensors that those of "{lacking.label}" lack: '
                    + ", ".join(missing[:3])
                    + (", ..." if len(missing) > 3 else ""),
                    ref.where,
                    "stack layers of one architecture",
                    tolerable=True,
                    error=ShapeError,
                )
        for rest in sorted(shapes.keys() & others.keys()):
            if shapes[rest].isdisjoint(others[rest]):
                findings.add(
                    f'layers of "{first.label}" and "{model.label}" do not fit on each other: {rest} is '
                    f"{list(min(shapes[rest]))} and {list(min(others[rest]))}",
                    ref.where,
                    "stack layers of equal width",
                    error=ShapeError,
                )
                break


def _list_shapes(model: Model) -> dict[str, set[tuple[int, ...]]]:
    """Shapes of each tensor of a layer, over all layers; buffers are left out."""
    shapes: dict[str, set[tuple[int, ...]]] = {}
    for member in model.members:
        for rest, stored in member.items():
            if not is_buffer(stored.name, stored.shape):
                shapes.setdefault(rest, set()).add(stored.shape)
    return shapes
