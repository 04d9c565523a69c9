"""A plan like any other, in which experts are copies. All user errors end here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace

from pymerge.checkpoint import Checkpoint, open_checkpoint
from pymerge.checkpoint.names import is_buffer
from pymerge.checkpoint.remote import Locate
from pymerge.checkpoint.sources import Given
from pymerge.config.moe import DRAWN, MOE, MoeConfig
from pymerge.config.values import ModelRef
from pymerge.errors import InternalError
from pymerge.methods import get_method
from pymerge.plan.findings import Findings
from pymerge.plan.moe.checks import check_base, check_experts, check_prompts, check_same, check_tokenizers, find_width
from pymerge.plan.moe.families import LAYERS, Family, find_family
from pymerge.plan.moe.output_config import find_dtype, make_moe_config
from pymerge.plan.moe.tasks import Gates, TaskMaker
from pymerge.plan.sources import Model, list_references, open_models
from pymerge.plan.values import RECIPES, MergePlan

__all__ = ["list_pending", "plan_moe"]

#: For the model card.
_REFERENCE = "dense models as experts: Komatsuzaki et al. 2023, sparse upcycling (arXiv:2212.05055)"


def plan_moe(
    config: MoeConfig,
    *,
    lenient: bool = False,
    seed: int = 0,
    allow_crimes: bool = False,
    untrained: bool = False,
    locate: Locate | None = None,
    find_gates: Callable[[MoeConfig, Checkpoint], Gates] | None = None,
) -> MergePlan:
    """Work out a mixture from headers alone; no weight is read, but by `find_gates`.

    Args:
        config: the document.
        lenient: turn what the established tool silently accepts into warnings.
        seed: of noise and of routers that are drawn.
        allow_crimes: permit experts of another type than the base's.
        untrained: permit experts that are all one model.
        locate: finds models of a hub (see `open_checkpoint`).
        find_gates: works out rows of routers from prompts and the base, once all is checked; None leaves them open.

    Raises:
        RecipeError: the document cannot work; carries every problem that was found.
        FormatError, DTypeError, ShapeError: if checkpoints alone are at fault.
    """
    findings = Findings(lenient=lenient)
    for warning in config.warnings:
        findings.warn(warning.message, warning.where, warning.hint)
    check_same(config, untrained, findings)
    recipe = config.recipe
    opened = open_models(recipe, findings, functools.partial(open_checkpoint, locate=locate))
    models = {ref: model.checkpoint for ref, model in opened.items()}
    if len(models) < len(list_references(recipe)):
        findings.check()
    base = models[config.base_model]
    family = find_family(config, str(base.config.get("model_type")), findings)
    layers = _count_layers(opened[config.base_model], findings)
    if family is not None and layers:
        check_base(config, base, family, layers, findings)
        check_experts(config, models, family, layers, allow_crimes, findings)
    check_prompts(config, base, findings)
    check_tokenizers(config, models, findings)
    findings.check()
    if family is None:
        raise InternalError("a mixture without a family has passed its checks")
    gates = find_gates(config, base) if find_gates and config.gate_mode not in DRAWN else None
    return _assemble(config, models, family, layers, seed, gates, findings)


def _assemble(
    config: MoeConfig,
    models: Mapping[ModelRef, Checkpoint],
    family: Family,
    layers: int,
    seed: int,
    gates: Gates | None,
    findings: Findings,
) -> MergePlan:
    base = models[config.base_model]
    dtype = find_dtype(config, base)
    sizes = {
        "experts": len(config.experts),
        "per_token": config.per_token,
        "width": find_width(models[config.experts[0].model]),
        "shared_width": find_width(models[config.shared[0].model]) if config.shared else 0,
    }
    made = make_moe_config(base, family, sizes, dtype, findings)
    if buffers := [name for name, source in base.tensors.items() if is_buffer(name, source.shape)]:
        findings.warn(f'{len(buffers)} tensors that models work out for themselves are left out: "{buffers[0]}"')
    findings.check()
    return MergePlan(
        config=config.recipe,
        # Passing through is all there is to do.
        method=replace(get_method("passthrough"), name=MOE, title="Mixture of experts", reference=_REFERENCE),
        tasks=TaskMaker(config, models, family, layers, dtype, seed, gates).make(),
        models=tuple(models.values()),
        donor=list(models).index(config.base_model),
        model_config=made,
        layers=layers,
        seed=seed,
        recipe_file=RECIPES[1],
        warnings=(*findings.warnings, *(gates.warnings if gates else ())),
    )


def _count_layers(base: Model, findings: Findings) -> int:
    """Layers of the base, as both its tensors and its config.json have them."""
    stacks, obstacle = base.architecture.stacks, base.architecture.obstacle
    if obstacle or stacks[0].prefix != LAYERS:
        what = obstacle or f"its layers are called {stacks[0].prefix}, and not {LAYERS}"
        findings.add(f'the layers of "{base.label}" cannot be told: {what}', base.checkpoint.ref.where)
        return 0
    return stacks[0].count


def list_pending(plan: MergePlan) -> frozenset[str]:
    """Tensors that were left open."""
    return frozenset(task.name for task in plan.tasks if _is_pending(task.sources[0]))


def _is_pending(source: object) -> bool:
    return isinstance(source, Given) and source.data is None
