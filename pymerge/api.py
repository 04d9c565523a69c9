"""The Python interface to whole merges: plan one, run one.

Each function calls the stages in order. Merging tensors that are in memory already is
pymerge.execute.memory.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymerge.api_formats import ADAPTER, find_form, plan_for_file, schedule_gguf
from pymerge.api_stages import StageFolders
from pymerge.backends import resolve_backend, resolve_devices
from pymerge.checkpoint.kinds import GGUF_SUFFIX
from pymerge.checkpoint.remote import Locate, Place
from pymerge.config import load_recipe
from pymerge.config.values import MergeConfig
from pymerge.errors import Problem, PymergeError, RecipeError
from pymerge.execute import execute
from pymerge.execute.journal import Journal
from pymerge.execute.values import ExecutionReport, OnProgress
from pymerge.output import MergeReport, find_extras, finish, is_made, make_folder, prepare
from pymerge.output.fetching import refuse_full_cache
from pymerge.output.single_file import finish_file, prepare_file, refuse_path
from pymerge.output.target import find_target
from pymerge.plan import make_plan
from pymerge.plan.missing import list_missing
from pymerge.plan.values import MergePlan
from pymerge.schedule import Schedule, make_schedule

if TYPE_CHECKING:
    from pymerge.api_adapter import AdapterParts
    from pymerge.hub import Fetcher, Hub, Publisher
    from pymerge.output.folder import Preparation

__all__ = ["MergeReport", "Stages", "complete", "lay_out", "merge", "plan"]

#: Bytes of an output shard, as the field has it.
SHARD_SIZE = 5_000_000_000


def plan(
    recipe: str | os.PathLike[str] | Mapping[str, Any],
    *,
    lenient: bool = False,
    seed: int = 0,
    allow_crimes: bool = False,
    cache: str | os.PathLike[str] | None = None,
) -> MergePlan:
    """Work out a merge without reading a weight; finds every mistake in a recipe.

    Args:
        recipe: a path, the YAML itself, or a mapping of the same shape.
        lenient: turn what the established tool silently accepts into warnings.
        seed: of the random masks (dare_linear, dare_ties, della, della_linear).
        allow_crimes: permit models of different architectures.
        cache: the folder of the hub's cache; None for the environment's. Of a hub's models that are not in it, their
            small files and the headers of their weights are fetched.

    Returns:
        Every output tensor with its sources, parameters, shape and dtype.

    Raises:
        RecipeError: the recipe cannot work; all problems are listed with file, line and column.
        FormatError: a checkpoint is missing or damaged.
    """
    locate = make_locate(cache)

    def make(config: MergeConfig) -> MergePlan:
        return make_plan(config, lenient=lenient, seed=seed, allow_crimes=allow_crimes, locate=locate)

    try:
        config = load_recipe(recipe, lenient=True)
    except RecipeError:
        if lenient:
            raise
        # Once more, strictly: now the error also names what lenient reading had let pass.
        config = load_recipe(recipe)
    if lenient or not config.warnings:
        return make(config)
    problems = [*config.warnings, *_find_problems(config, make)]
    raise RecipeError(sorted(problems, key=lambda problem: problem.where.line if problem.where else 0))


def lay_out(
    planned: MergePlan,
    out: str | os.PathLike[str],
    *,
    shard_size: int = SHARD_SIZE,
    threads: int | None = None,
    memory: int | None = None,
    out_format: str | None = None,
    gguf_like: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Schedule:
    """Lay a plan out on disk, byte for byte; nothing is written. Arguments and errors are those of `merge`."""
    target = Path(os.path.expanduser(out))  # nothing is made there: any place will do
    form = find_form(target, out_format, gguf_like)
    if form is None:
        return make_schedule(planned, shard_size=shard_size, threads=threads, memory=memory)
    if form == ADAPTER:
        from pymerge.api_adapter import convert_plan, schedule_adapter

        return schedule_adapter(convert_plan(planned)[0], threads, memory)

    def plan_again(document: MergeConfig) -> MergePlan:
        # What there was to find in the recipe was found.
        return make_plan(document, lenient=True, seed=planned.seed, allow_crimes=True, locate=make_locate(cache))

    like = Path(gguf_like).expanduser() if gguf_like else None
    written = plan_for_file(planned, plan_again)
    return schedule_gguf(written, target, form, like=like, threads=threads, memory=memory)


def make_locate(cache: str | os.PathLike[str] | None) -> Locate:
    """What finds models of a hub; merges of folders do without loading it."""
    hubs: list[Hub] = []

    def locate(repo: str, revision: str | None, adapter: bool) -> Place:
        from pymerge.hub import Hub

        if not hubs:
            hubs.append(Hub(cache))
        return hubs[0].locate(repo, revision, adapter)

    return locate


def _find_problems(config: MergeConfig, make: Callable[[MergeConfig], MergePlan]) -> tuple[Problem, ...]:
    try:
        make(config)
    except RecipeError as error:
        return error.problems
    except PymergeError as error:
        return (Problem(str(error)),)
    return ()


def make_fetcher(plan: MergePlan, cache: str | os.PathLike[str] | None) -> Fetcher | None:
    """What brings the files of a hub that a plan reads and that are not here; None if all are."""
    missing = list_missing(plan)
    if not missing:
        return None
    from pymerge.hub import Fetcher

    return Fetcher(missing, cache)


def make_publisher(repo: str | None, private: bool) -> Publisher | None:
    """What sends a result to the hub; None where it stays here."""
    if repo is None:
        if private:
            raise RecipeError(
                "a private repository is one that is pushed to; add --push user/name, or leave private out"
            )
        return None
    from pymerge.hub import Publisher

    return Publisher(repo, private=private)


def complete(
    schedule: Schedule,
    preparation: Preparation,
    execution: ExecutionReport,
    clock: Stages,
    publisher: Publisher | None,
    *,
    copy_tokenizer: bool,
    write_model_card: bool,
    **settings: Any,
) -> MergeReport:
    """Complete a model's folder whose weights are there, and the hub's copy of it; `settings` are for the manifest."""
    resources = schedule.resources
    report = finish(
        schedule,
        preparation,
        execution,
        settings={**settings, "threads": resources.threads, "memory": resources.memory},
        copy_tokenizer=copy_tokenizer,
        write_model_card=write_model_card,
    )
    clock.end("finish")
    if publisher:
        report = replace(report, pushed=publisher.finish(preparation.folder))
        clock.end("push")
    return report


class Stages:
    """Seconds that the stages of a merge take, one after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()

    def end(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._began
        self._began = now


def merge(
    recipe: str | os.PathLike[str] | Mapping[str, Any],
    out: str | os.PathLike[str],
    *,
    backend: str = "auto",
    devices: Sequence[str] = (),
    vram: int | None = None,
    threads: int | None = None,
    memory: int | None = None,
    seed: int = 0,
    shard_size: int = SHARD_SIZE,
    lenient: bool = False,
    allow_crimes: bool = False,
    allow_nonfinite: bool = False,
    overwrite: bool = False,
    restart: bool = False,
    hash_inputs: bool = False,
    reflink: bool = True,
    cache: str | os.PathLike[str] | None = None,
    push: str | None = None,
    private: bool = False,
    copy_tokenizer: bool = True,
    write_model_card: bool = True,
    keep_stages: bool = False,
    out_format: str | None = None,
    gguf_like: str | os.PathLike[str] | None = None,
    on_progress: OnProgress | None = None,
) -> MergeReport:
    """Merge checkpoints into a new one; the weights depend on recipe, inputs and seed alone.

    A merge that was stopped, killed or out of disk goes on where it was when it is called again: tensors
    that were written are kept, once their bytes have been checked.

    Args:
        recipe: a path, the YAML itself, or a mapping of the same shape.
        out: the folder to make; must be empty or absent unless `overwrite`.
        backend: auto, cpu, cuda, triton or reference.
        devices: of cuda and triton, such as ("cuda:0", "cuda:1"), which share the tensors; none: the current one.
        vram: bytes of each device that may be used; None takes most of what is free. Tensors that do not fit
            are merged by the CPU, to the same bytes.
        threads: worker threads; None takes the processors of this process.
        memory: bytes that the merge may hold, mapped pages included; None chooses.
        seed: of the random masks (dare_linear, dare_ties, della, della_linear).
        shard_size: bytes of a weight file at most; 0 writes one file.
        lenient: turn what the established tool silently accepts into warnings.
        allow_crimes: permit models of different architectures.
        allow_nonfinite: store and count infinities and NaN instead of stopping.
        overwrite: replace the model that `out` holds.
        restart: keep nothing of an unfinished merge that `out` holds.
        hash_inputs: put the SHA-256 of every input file into the manifest; reads them once more.
        reflink: let tensors that are copied share the disk space of their source where the file
            system can (XFS, Btrfs).
        cache: the folder of the hub's cache; None for the environment's. Weights that are not in it are fetched while
            others are merged.
        push: `user/name`, where the result goes on the hub, each weight file as soon as it is whole.
        private: make that a private repository, if it is new.
        copy_tokenizer: take tokenizer and chat template over from the base, or the first model.
        write_model_card: write README.md.
        keep_stages: of a recipe of several documents, merge every stage into a folder in `<out>.stages`, in float32 as
            later stages read it. Else stages are made while they are read, or their folders are removed.
        out_format: "safetensors" (a model's folder); "adapter" (a folder with what adapters of one base add to it in
            sum); "gguf", "gguf:f32", "gguf:f16", "gguf:bf16", "gguf:q8_0": one file, for llama.cpp. None goes by the
            name of `out`.
        gguf_like: a GGUF file whose settings and tokenizer such an output takes over.
        on_progress: called now and then while weights are merged.

    Raises:
        RecipeError: recipe or output folder cannot work, or `out` holds another unfinished merge.
        FormatError, ShapeError, DTypeError: a checkpoint cannot be read or merged.
        NonFiniteError: a result is infinite or NaN (unless `allow_nonfinite`).
        BackendError: the backend that was asked for is not available.
        ResourceError: disk or memory ran out, another merge is writing to `out`, or the hub does not take the result.
    """
    clock = Stages()
    target = find_target(out)
    form = find_form(target, out_format, gguf_like)
    if push and form:
        what = "an adapter" if form == ADAPTER else "a GGUF file"
        raise RecipeError(f"{what} is not pushed by pymerge; upload it with huggingface-cli upload")
    planned = plan(recipe, lenient=lenient, seed=seed, allow_crimes=allow_crimes, cache=cache)
    parts = None
    if form == ADAPTER:
        from pymerge.api_adapter import convert_plan

        planned, parts = convert_plan(planned)
    # Before an old model is touched: what cannot work must cost nothing.
    resolve_devices(resolve_backend(backend), devices, vram)
    if form is None:
        find_extras(planned.models[planned.donor].folder, tokenizer=copy_tokenizer)
    refuse_full_cache(planned)
    publisher = make_publisher(push, private)
    locate = make_locate(cache)

    def plan_again(document: MergeConfig, merged: Mapping[str, Path]) -> MergePlan:
        return make_plan(document, lenient=lenient, seed=seed, allow_crimes=allow_crimes, merged=merged, locate=locate)

    def run(schedule: Schedule, folder: Path, journal: Journal, uploading: Publisher | None = None) -> ExecutionReport:
        execution = execute(
            schedule,
            folder,
            backend=backend,
            devices=devices,
            vram=vram,
            allow_nonfinite=allow_nonfinite,
            reflink=reflink,
            journal=journal,
            on_progress=on_progress,
            arrivals=make_fetcher(schedule.plan, cache),
            on_shard=uploading.add if uploading else None,
        )
        clock.end("merge")
        return execution

    def write_gguf(planned: MergePlan) -> MergeReport:
        schedule = lay_out(planned, target, threads=threads, memory=memory, out_format=out_format, gguf_like=gguf_like)
        clock.end("plan")
        made = prepare_file(schedule, target, suffix=GGUF_SUFFIX, overwrite=overwrite, restart=restart, reflink=reflink)
        clock.end("prepare")
        with made.journal as journal:
            report = finish_file(schedule, made, run(schedule, target.parent, journal))
        clock.end("finish")
        return report

    def write_adapter(planned: MergePlan, parts: AdapterParts) -> MergeReport:
        from pymerge.api_adapter import finish_adapter, prepare_adapter, schedule_adapter

        schedule = schedule_adapter(planned, threads, memory)
        clock.end("plan")
        made = prepare_adapter(schedule, target, overwrite=overwrite, restart=restart, reflink=reflink)
        clock.end("prepare")
        with made.journal as journal:
            execution = run(schedule, target, journal)
            settings = {"backend": backend, "lenient": lenient, "allow_crimes": allow_crimes}
            settings |= {"allow_nonfinite": allow_nonfinite}
            report = finish_adapter(
                schedule, made, execution, parts, settings=settings, write_model_card=write_model_card
            )
        clock.end("finish")
        return replace(report, stages=clock.seconds)

    def carry_out(planned: MergePlan, folder: Path, *, stage: bool = False) -> MergeReport | None:
        schedule = make_schedule(planned, shard_size=shard_size, threads=threads, memory=memory)
        if stage and not restart and is_made(schedule, folder):
            return None
        clock.end("plan")
        preparation = prepare(
            schedule,
            folder,
            overwrite=overwrite or (stage and not keep_stages),
            restart=restart,
            reflink=reflink,
            hash_inputs=hash_inputs,
        )
        clock.end("prepare")
        uploading = None if stage else publisher
        with preparation.journal as journal, uploading or nullcontext():
            execution = run(schedule, preparation.folder, journal, uploading)
            return complete(
                schedule,
                preparation,
                execution,
                clock,
                uploading,
                copy_tokenizer=copy_tokenizer,
                write_model_card=write_model_card,
                backend=backend,
                shard_size=shard_size,
                lenient=lenient,
                allow_crimes=allow_crimes,
                allow_nonfinite=allow_nonfinite,
            )

    if parts is not None:
        return write_adapter(planned, parts)
    if form is not None:
        refuse_path(planned, target, GGUF_SUFFIX, overwrite=overwrite)
        planned = plan_for_file(planned, functools.partial(plan_again, merged={}))
    folders = StageFolders.beside(target, keep=keep_stages)
    if planned.separate or (keep_stages and planned.config.stages):
        if form is None:
            make_folder(planned, target, overwrite=overwrite)
        planned = folders.merge(planned, plan_again, functools.partial(carry_out, stage=True))
    report = carry_out(planned, target) if form is None else write_gguf(planned)
    assert report is not None
    folders.remove()
    return replace(report, stages=clock.seconds)
