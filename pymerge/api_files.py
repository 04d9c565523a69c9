"""The Python interface to merges of single files: anything with names, into one file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from pymerge.api import Stages
from pymerge.backends import resolve_backend, resolve_devices
from pymerge.config import load_recipe
from pymerge.config.values import Filter, Input, MergeConfig, ModelRef, Setting
from pymerge.dtypes import BY_NAME
from pymerge.errors import RecipeError
from pymerge.execute import execute
from pymerge.execute.values import OnProgress
from pymerge.methods.base import Value
from pymerge.output import MergeReport
from pymerge.output.single_file import find_metadata, finish_file, prepare_file
from pymerge.output.target import find_target
from pymerge.plan.single_files import plan_files
from pymerge.schedule import Schedule, make_schedule

__all__ = ["merge_files", "schedule_files"]

PathLike: TypeAlias = "str | os.PathLike[str]"


def merge_files(
    method: PathLike | Mapping[str, Any],
    files: Sequence[PathLike] = (),
    *,
    out: PathLike,
    base: PathLike | None = None,
    parameters: Mapping[str, Value | Sequence[Value]] | None = None,
    keys: str = "same",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    dtype: str | None = None,
    backend: str = "auto",
    devices: Sequence[str] = (),
    vram: int | None = None,
    threads: int | None = None,
    memory: int | None = None,
    seed: int = 0,
    allow_nonfinite: bool = False,
    overwrite: bool = False,
    restart: bool = False,
    reflink: bool = True,
    on_progress: OnProgress | None = None,
) -> MergeReport:
    """Merge files of tensors into one, name by name, as `merge` merges models: diffusion models, adapters, embeddings.

    Args:
        method: a name of `pymerge methods`; or a recipe whose models are files, as a path that ends in .yml or .yaml,
            its text or a mapping, which then gives what the next arguments do, up to `dtype`, but for `keys`.
        files: the models without the base: .safetensors, .bin, .pt, .pth or .ckpt.
        out: the file to make, whose name ends in .safetensors. It has the `__metadata__` of the first file.
        base: the base model's file, for methods that have one.
        parameters: by name, the same for every tensor; a per-model parameter takes one value for all, or one each.
        keys: what to do where names differ: "same", an error; "union", tensors are merged from the files that have
            them, or copied where those are too few; "intersection", they are left out.
        include, exclude: parts of names of tensors: which are merged; the others stay as the base has them.
        dtype: the type of the result's tensors; None promotes the inputs' types, tensor by tensor.
        backend, devices, vram, threads, memory, seed, allow_nonfinite, reflink, on_progress: as for `merge`.
        overwrite: replace the file `out`.
        restart: keep nothing of an unfinished merge into `out`.

    Returns:
        What `merge` returns; its folder is the one that `out` is in.

    Raises:
        RecipeError: method, parameters or output cannot work, or names differ in ways that `keys` does not allow.
        FormatError, ShapeError, DTypeError: a file cannot be read or merged.
        NonFiniteError: a result is infinite or NaN (unless `allow_nonfinite`).
        BackendError: the backend that was asked for is not available.
        ResourceError: disk or memory ran out, or another merge is writing to `out`.
    """
    clock = Stages()
    path = find_target(out)
    schedule = schedule_files(
        method,
        files,
        out=path,
        base=base,
        parameters=parameters,
        keys=keys,
        include=include,
        exclude=exclude,
        dtype=dtype,
        threads=threads,
        memory=memory,
        seed=seed,
    )
    clock.end("plan")
    resolve_devices(resolve_backend(backend), devices, vram)
    preparation = prepare_file(schedule, path, overwrite=overwrite, restart=restart, reflink=reflink)
    clock.end("prepare")
    with preparation.journal as journal:
        execution = execute(
            schedule,
            path.parent,
            backend=backend,
            devices=devices,
            vram=vram,
            allow_nonfinite=allow_nonfinite,
            reflink=reflink,
            journal=journal,
            on_progress=on_progress,
        )
        clock.end("merge")
        report = finish_file(schedule, preparation, execution)
    clock.end("finish")
    return replace(report, stages=clock.seconds)


def schedule_files(
    method: PathLike | Mapping[str, Any],
    files: Sequence[PathLike] = (),
    *,
    out: Path,
    keys: str = "same",
    threads: int | None = None,
    memory: int | None = None,
    seed: int = 0,
    **options: Any,
) -> Schedule:
    """Plan a merge of files and lay it out; no weight is read. Arguments and errors are those of `merge_files`."""
    planned = plan_files(_make_config(method, files, **options), keys=keys, seed=seed)
    metadata = find_metadata(planned)
    return make_schedule(planned, shard_size=0, threads=threads, memory=memory, single=out.name, metadata=metadata)


def _is_recipe(method: object) -> bool:
    """Whether what stands for a method is a recipe instead."""
    return not isinstance(method, str) or method.endswith((".yml", ".yaml")) or "\n" in method


def _make_config(
    method: PathLike | Mapping[str, Any],
    files: Sequence[PathLike] = (),
    *,
    base: PathLike | None = None,
    parameters: Mapping[str, Value | Sequence[Value]] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    dtype: str | None = None,
) -> MergeConfig:
    """A recipe read, or made of arguments; see `merge_files`.

    Raises:
        RecipeError: the recipe cannot be read, arguments are given besides one, or values are not one for each model.
    """
    if _is_recipe(method):
        given = {"files": files, "base": base, "parameters": parameters, "include": include, "exclude": exclude}
        for name in (name for name, value in {**given, "dtype": dtype}.items() if value):
            raise RecipeError(f"{name} is given besides a recipe; write it into the recipe")
        return load_recipe(method)
    if not files:
        raise RecipeError(f"{method}: there is no file to merge; name them after the method")
    kind = None if dtype is None else BY_NAME.get(dtype)
    if dtype is not None and (kind is None or not kind.mergeable):
        names = ", ".join(name for name, known in BY_NAME.items() if known.mergeable)
        raise RecipeError(f'dtype "{dtype}" is not a type that weights can be merged in; it is one of {names}')
    shared: dict[str, Setting] = {}
    each: list[dict[str, Setting]] = [{} for _ in files]
    for name, value in (parameters or {}).items():
        if isinstance(value, (str, int, float)):
            shared[name] = Setting(value)
            continue
        if len(value) != len(files):
            raise RecipeError(f"{name} has {len(value)} values for {len(files)} files; give one for all, or one each")
        for settings, one in zip(each, value, strict=True):
            settings[name] = Setting(one)
    return MergeConfig(
        merge_method=str(method),
        models=tuple(Input(ModelRef(os.fspath(file)), settings) for file, settings in zip(files, each, strict=True)),
        base_model=None if base is None else ModelRef(os.fspath(base)),
        parameters=shared,
        dtype=kind,
        include=tuple(map(Filter, include)),
        exclude=tuple(map(Filter, exclude)),
    )
