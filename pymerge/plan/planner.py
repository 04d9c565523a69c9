"""`make_plan`: a recipe and the headers of its models -> every output tensor. All user errors end here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from pymerge.checkpoint import Checkpoint, open_checkpoint
from pymerge.checkpoint.remote import Locate
from pymerge.config import suggest_name
from pymerge.config.numbers import whole_number
from pymerge.config.values import MergeConfig, ModelRef
from pymerge.errors import InternalError, PymergeError
from pymerge.methods import get_method, method_names
from pymerge.methods.base import Method
from pymerge.plan.assembly import Part
from pymerge.plan.binding import Binder, check_filters
from pymerge.plan.checks import check_architectures
from pymerge.plan.costs import trace_task
from pymerge.plan.findings import Findings
from pymerge.plan.groups import list_group_selects
from pymerge.plan.modules import (
    Section,
    assemble_sections,
    check_section_seams,
    group_modules,
    make_sections,
)
from pymerge.plan.output_config import make_config
from pymerge.plan.parameters import check_settings
from pymerge.plan.scope import Scope
from pymerge.plan.sources import Group, Model, list_references, open_models
from pymerge.plan.stages import StageOpener, list_separate, settle_models
from pymerge.plan.tasks import TaskMaker
from pymerge.plan.values import MergePlan, TensorTask
from pymerge.plan.vocabularies import arrange_vocabulary

__all__ = ["make_plan"]


#: Opens the models of a document.
Opener: TypeAlias = Callable[[MergeConfig, Findings], Mapping[ModelRef, Model]]


def make_plan(
    config: MergeConfig,
    *,
    lenient: bool = False,
    seed: int = 0,
    allow_crimes: bool = False,
    opener: Opener | None = None,
    partial: bool = False,
    merged: Mapping[str, Path] | None = None,
    locate: Locate | None = None,
) -> MergePlan:
    """Work out a merge from headers alone; no weight is read.

    Args:
        config: the recipe.
        lenient: turn what the established tool silently accepts into warnings.
        seed: of random masks.
        allow_crimes: permit models of different architectures.
        opener: opens the models; those of one merge need not be folders.
        partial: models may lack tensors, which are merged from those that have them.
        merged: folders of stages that are merged already.
        locate: finds models of a hub (see `open_checkpoint`).

    Raises:
        RecipeError: the recipe cannot work; carries every problem that was found.
        FormatError, DTypeError, ShapeError: if checkpoints alone are at fault.
    """
    seed = whole_number("seed", seed)
    if config.stages:
        import tempfile

        with tempfile.TemporaryDirectory(prefix="pymerge-") as desk:
            return _plan_stages(config, lenient, seed, allow_crimes, merged or {}, locate, Path(desk))
    open_one = functools.partial(open_checkpoint, locate=locate)
    open_all = opener or functools.partial(open_models, opener=open_one)
    return _plan_document(config, lenient, seed, allow_crimes, open_all, open_one, partial)


def _plan_stages(
    config: MergeConfig,
    lenient: bool,
    seed: int,
    allow_crimes: bool,
    merged: Mapping[str, Path],
    locate: Locate | None,
    desk: Path,
) -> MergePlan:
    # Names first, of all documents at once: later ones are planned only if those before them can be.
    findings = Findings(lenient=lenient)
    for document in (*config.stages, config):
        _find_method(document, findings)
    findings.check()
    stages: dict[str, MergePlan] = {}
    separate: list[str] = []
    open_one = StageOpener(stages, merged, desk, locate)
    open_all = functools.partial(open_models, opener=open_one)

    def plan_document(document: MergeConfig) -> MergePlan:
        plan = _plan_document(document, lenient, seed, allow_crimes, open_all, open_one, False)
        separate.extend(name for name in list_separate(plan, stages) if name not in separate)
        return settle_models(plan, stages)

    for stage in config.stages:
        if stage.stage is not None and stage.stage not in merged:
            stages[stage.stage] = plan_document(stage)
    plan = plan_document(config)
    warnings = [warning for each in (*stages.values(), plan) for warning in each.warnings]
    return replace(plan, warnings=tuple(dict.fromkeys(warnings)), separate=tuple(separate))


def _plan_document(
    config: MergeConfig,
    lenient: bool,
    seed: int,
    allow_crimes: bool,
    open_all: Opener,
    open_one: Callable[[ModelRef], Checkpoint],
    partial: bool,
) -> MergePlan:
    findings = Findings(lenient=lenient)
    for warning in config.warnings:
        findings.warn(warning.message, warning.where, warning.hint)
    method = _find_method(config, findings)
    models = open_all(config, findings)
    grouped = group_modules(config, method, findings) if method else ()
    groups = tuple(group for each in grouped for group in each)
    if method:
        check_settings(config, method, groups, findings)
    parts: list[Part] | None = None
    if method and len(models) == len(list_references(config)):
        check_architectures(models, allow_crimes, findings)
        donor = models[config.base_model] if config.base_model else next(iter(models.values()))
        arranged = arrange_vocabulary(config, models, open_one, findings)
        if config.tokenizer and not arranged.vocabulary:
            findings.check()  # without one, every shape along the vocabulary would be told to differ
        models = arranged.models
        donor = models[donor.checkpoint.ref]
        sections = make_sections(config, grouped, models, donor, findings)
        parts = assemble_sections(sections, config, donor, findings)
    if method is None or parts is None:
        findings.check()
        raise InternalError("a plan that cannot be assembled has passed its checks")
    tasks = _make_tasks(config, method, groups, parts, donor, seed, findings, partial)
    if not findings.fatal:
        check_section_seams(sections, findings)
    output = make_config(donor, models, sections, parts, tasks, arranged.vocabulary, findings)
    findings.check()
    plan = MergePlan(
        config=config,
        method=method,
        tasks=tasks,
        models=(*(model.checkpoint for model in models.values()), *arranged.lenders),
        donor=list(models).index(donor.checkpoint.ref),
        model_config=output,
        layers=_count_layers(sections[0]),
        seed=seed,
        vocabulary=arranged.vocabulary,
        warnings=findings.warnings,
    )
    _check_programs(plan, findings)
    return replace(plan, group_selects=list_group_selects(method, tasks))


def _find_method(config: MergeConfig, findings: Findings) -> Method | None:
    try:
        return get_method(config.merge_method)
    except KeyError:
        hint = suggest_name(config.merge_method, method_names(), "methods")
        findings.add(f'there is no merge method "{config.merge_method}"', config.method_where, hint)
        return None


def _make_tasks(
    config: MergeConfig,
    method: Method,
    groups: Sequence[Group],
    parts: Sequence[Part],
    donor: Model,
    seed: int,
    findings: Findings,
    partial: bool,
) -> tuple[TensorTask, ...]:
    vocabulary = frozenset(name for name in (donor.architecture.embedding, donor.architecture.head) if name)
    binder = Binder(config, method, groups, seed, findings)
    scope = Scope(config, findings)
    maker = TaskMaker(config, method, groups, binder, findings, donor.label, vocabulary, scope, partial)
    tasks = [task for part in sorted(parts, key=lambda part: part.name) if (task := maker.make(part))]
    maker.report()
    scope.report([part.name for part in parts])
    check_filters(binder, parts)
    return tuple(tasks)


def _count_layers(section: Section) -> int:
    ranges = [group.sources[0].layer_range or (0, 0) for group in section.groups]
    return sum(end - first for first, end in ranges) if section.sliced else len(section.donor.members)


def _check_programs(plan: MergePlan, findings: Findings) -> None:
    """Run all programs without data: what a method refuses for itself is refused now."""
    for task in plan.tasks:
        try:
            trace_task(plan, task)
        except PymergeError as error:
            findings.take(error)
    findings.check()
