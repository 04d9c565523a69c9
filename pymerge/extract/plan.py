"""An extraction planned from headers: all mistakes of a caller end here, before a weight is read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace

from pymerge.checkpoint import Checkpoint, Source, open_checkpoint
from pymerge.checkpoint.remote import Locate
from pymerge.checkpoint.sources import list_stored
from pymerge.config import load_recipe
from pymerge.config.values import Input, MergeConfig, ModelRef
from pymerge.errors import RecipeError, ResourceError
from pymerge.extract.decompose import estimate_memory
from pymerge.extract.filters import Filters
from pymerge.extract.roles import find_task_type
from pymerge.extract.sorting import Sorter
from pymerge.extract.values import ExtractionPlan, Factors, Options, Whole
from pymerge.plan.findings import Findings
from pymerge.plan.sources import Model, open_models
from pymerge.schedule.machine import usable_memory, usable_processors

__all__ = ["list_sources", "plan_extraction"]

#: What Python, numpy and the pieces of tensors that are read take.
_AT_REST = 96 << 20


def plan_extraction(
    tuned: str,
    base: str,
    options: Options,
    *,
    locate: Locate | None = None,
    threads: int | None = None,
    memory: int | None = None,
) -> ExtractionPlan:
    """Plan what `tuned` adds to `base`, both as recipes name models, as an adapter.

    Raises:
        RecipeError: options or models cannot work; all problems are listed.
        FormatError, DTypeError: a model cannot be read.
        ShapeError: their tensors do not fit together.
        ResourceError: the largest matrix does not fit into `memory`.
    """
    findings = Findings(lenient=False)
    filters = Filters.read(options, findings)
    models = _open(tuned, base, findings, locate)
    sorter = Sorter(*models, options, filters, findings)
    parts = sorted(sorter.sort(), key=_order)
    filters.report_unused(findings)
    findings.check()
    count, budget = _fit(parts, threads, memory)
    read = {stored.path for part in parts for source in list_sources(part) for stored in list_stored(source)}
    remote = {str(path): file for model in models for path, file in model.checkpoint.remote.items()}
    return ExtractionPlan(
        options=options,
        tuned=models[0].checkpoint,
        base=models[1].checkpoint,
        parts=tuple(parts),
        left_out=sorter.left_out,
        warnings=tuple(str(warning) for warning in findings.warnings),
        turned=sorter.turned,
        task_type=find_task_type(models[1].checkpoint.config),
        threads=count,
        memory=budget,
        missing={path: remote[path] for path in sorted(read & remote.keys()) if not os.path.exists(path)},
    )


def _open(tuned: str, base: str, findings: Findings, locate: Locate | None) -> tuple[Model, Model]:
    ref, base_ref = _read_reference(tuned), _read_reference(base)
    if ref == base_ref:
        raise RecipeError(f'model and base are both "{ref}"; name the fine-tuned model and the one that it comes from')
    config = MergeConfig("linear", models=(Input(ref),), base_model=base_ref)

    def opener(named: ModelRef) -> Checkpoint:
        return open_checkpoint(named, locate)

    models = open_models(config, findings, opener)
    if len(models) < 2:
        findings.check()
    return models[ref], models[base_ref]


def _read_reference(text: str) -> ModelRef:
    """`path[@revision][+lora[@revision]]`, as in recipes."""
    try:
        config = load_recipe({"merge_method": "passthrough", "models": [{"model": text}]})
    except RecipeError as error:
        # There is no recipe to point to.
        raise RecipeError([replace(problem, where=None) for problem in error.problems]) from None
    return replace(config.models[0].model, where=None)


def _order(part: Factors | Whole) -> tuple[bool, int]:
    """What may be refused comes first; then wide types, so that all data is aligned."""
    if isinstance(part, Factors):
        return (True, -part.dtype.itemsize)
    return (part.writable, -max(tensor.dtype.itemsize for tensor in part.tensors))


def list_sources(part: Factors | Whole) -> Iterable[Source]:
    """What a part is read from."""
    if isinstance(part, Factors):
        return (part.tuned, part.base)
    return [source for tensor in part.tensors for source in (tensor.tuned, tensor.base)]


def _fit(parts: Iterable[Factors | Whole], threads: int | None, memory: int | None) -> tuple[int, int]:
    """How many matrices may be decomposed side by side, and the bytes that they may take."""
    budget = memory or usable_memory()
    needs = [
        (_AT_REST + estimate_memory((rows, columns), part.rank, part.method), part)
        for part in parts
        if isinstance(part, Factors)
        for rows, columns in (part.tuned.shape,)
    ]
    count = threads or usable_processors()
    if not needs:
        return count, budget
    most, largest = max(needs, key=lambda each: each[0])
    if most > budget:
        way = "; --method randomized takes less" if largest.method == "exact" else ""
        raise ResourceError(
            f"{largest.module}: decomposing {list(largest.tuned.shape)} takes {most:,} bytes, and --memory is "
            f"{budget:,}; allow more{way}, or leave it out by --exclude-regex"
        )
    return max(1, min(count, (budget - _AT_REST) // (most - _AT_REST))), budget
