"""The Python interface to mixtures of experts: dense models of one shape, put together."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, TypeAlias

from pymerge.api import SHARD_SIZE, Stages, complete, make_fetcher, make_locate, make_publisher
from pymerge.backends import resolve_backend, resolve_devices
from pymerge.checkpoint import Checkpoint
from pymerge.checkpoint.sources import list_stored
from pymerge.config.moe import DRAWN, MoeConfig
from pymerge.config.moe_document import load_moe
from pymerge.execute import execute
from pymerge.execute.values import OnProgress
from pymerge.output import MergeReport, find_extras, make_folder, prepare
from pymerge.output.fetching import refuse_full_cache
from pymerge.output.target import find_target
from pymerge.plan.moe import plan_moe
from pymerge.plan.moe.tasks import Gates
from pymerge.plan.values import MergePlan
from pymerge.schedule import make_schedule

__all__ = ["moe", "plan_mixture"]

Document: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any]"


def plan_mixture(
    document: Document,
    *,
    lenient: bool = False,
    seed: int = 0,
    allow_crimes: bool = False,
    untrained: bool = False,
    cache: str | os.PathLike[str] | None = None,
) -> MergePlan:
    """Work out a mixture without reading a weight; finds every mistake in a document. See `moe`."""
    return plan_moe(
        _load(document, lenient),
        lenient=lenient,
        seed=seed,
        allow_crimes=allow_crimes,
        untrained=untrained,
        locate=make_locate(cache),
    )


def _load(document: Document, lenient: bool) -> MoeConfig:
    config = load_moe(document, lenient=lenient)
    if config.gate_mode not in DRAWN:
        from pymerge.gates import check_available

        check_available(config)
    return config


def moe(
    document: Document,
    out: str | os.PathLike[str],
    *,
    untrained: bool = False,
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
    on_progress: OnProgress | None = None,
) -> MergeReport:
    """Put dense models together as the experts of a mixture, such as a Mixtral.

    A build that was stopped, killed or out of disk goes on where it was when it is called again.

    Args:
        document: a path, the YAML itself, or a mapping of the same shape; mergekit's keys (docs/moe.md).
        out: the folder to make; must be empty or absent unless `overwrite`.
        untrained: permit experts that are all one model.
        seed: of noise and of routers that are drawn.
        allow_crimes: permit experts of another type than the base's.
        memory: bytes that copying may hold; running the base for `gate_mode: hidden` takes its own.
        backend, devices, vram, threads, shard_size, lenient, allow_nonfinite, overwrite, restart, hash_inputs, reflink,
            cache, push, private, copy_tokenizer, write_model_card, on_progress: as for `merge`.

    Raises:
        RecipeError: document or output folder cannot work, or `out` holds another unfinished merge.
        FormatError, ShapeError, DTypeError: a checkpoint cannot be read, or does not fit.
        NonFiniteError: a result is infinite or NaN (unless `allow_nonfinite`).
        BackendError: the backend that was asked for is not available.
        ResourceError: disk or memory ran out, another merge is writing to `out`, or the hub does not take the result.
    """
    clock = Stages()
    config, folder = _load(document, lenient), find_target(out)
    make = functools.partial(
        plan_moe,
        config,
        lenient=lenient,
        seed=seed,
        allow_crimes=allow_crimes,
        untrained=untrained,
        locate=make_locate(cache),
    )
    planned = make()
    # Before an old model is touched, or a base is run: what cannot work must cost nothing.
    resolve_devices(resolve_backend(backend), devices, vram)
    find_extras(planned.models[planned.donor].folder, tokenizer=copy_tokenizer)
    refuse_full_cache(planned)
    make_folder(planned, folder, overwrite=overwrite)
    publisher = make_publisher(push, private)
    clock.end("plan")
    if config.gate_mode not in DRAWN:
        planned = make(find_gates=functools.partial(_find_gates, cache=cache))
        clock.end("gates")
    schedule = make_schedule(planned, shard_size=shard_size, threads=threads, memory=memory)
    preparation = prepare(
        schedule, folder, overwrite=overwrite, restart=restart, reflink=reflink, hash_inputs=hash_inputs
    )
    clock.end("prepare")
    with preparation.journal as journal, publisher or nullcontext():
        execution = execute(
            schedule,
            preparation.folder,
            backend=backend,
            devices=devices,
            vram=vram,
            allow_nonfinite=allow_nonfinite,
            reflink=reflink,
            journal=journal,
            on_progress=on_progress,
            arrivals=make_fetcher(planned, cache),
            on_shard=publisher.add if publisher else None,
        )
        clock.end("merge")
        report = complete(
            schedule,
            preparation,
            execution,
            clock,
            publisher,
            copy_tokenizer=copy_tokenizer,
            write_model_card=write_model_card,
            backend=backend,
            shard_size=shard_size,
            lenient=lenient,
            allow_crimes=allow_crimes,
            allow_nonfinite=allow_nonfinite,
        )
    return replace(report, stages=clock.seconds)


def _find_gates(config: MoeConfig, base: Checkpoint, *, cache: str | os.PathLike[str] | None) -> Gates:
    from pymerge.gates import find_gates

    names = ("model.embed_tokens.weight",) if config.gate_mode == "cheap_embed" else tuple(base.tensors)
    _fetch(base, names, cache)
    return find_gates(config, base)


def _fetch(base: Checkpoint, names: Sequence[str], cache: str | os.PathLike[str] | None) -> None:
    """Have files of the base come from a hub that are not here yet; raises as a merge of them."""
    paths = dict.fromkeys(stored.path for name in names for stored in list_stored(base.tensors[name]))
    remote = {str(path): file for path, file in base.remote.items()}
    absent = {path: remote[path] for path in paths if path in remote and not os.path.exists(path)}
    if not absent:
        return
    from pymerge.hub import Fetcher

    fetcher = Fetcher(absent, cache)
    try:
        fetcher.expect(list(absent))
        while not fetcher.ready(absent):
            time.sleep(0.05)
    finally:
        fetcher.close()
