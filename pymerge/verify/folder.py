"""`verify`: an output folder against its manifest, its index, its config.json, and its inputs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pymerge.checkpoint import StoredTensor
from pymerge.checkpoint.adapters import CONFIG as ADAPTER
from pymerge.checkpoint.adapters import WEIGHTS
from pymerge.errors import RecipeError, ResourceError
from pymerge.output.folder import CONFIG
from pymerge.plan.adapter import convert_plan
from pymerge.schedule.machine import usable_memory, usable_processors
from pymerge.verify.config import check_adapter_config, check_config
from pymerge.verify.contents import check_contents
from pymerge.verify.inputs import find_inputs
from pymerge.verify.manifest import Manifest, read_manifest
from pymerge.verify.recompute import recompute
from pymerge.verify.shards import read_shards
from pymerge.verify.values import Check, Finding, OnStep, Recomputed, Verification

__all__ = ["SAMPLE", "verify"]

#: Tensors that are made again.
SAMPLE = 4


def verify(
    folder: str | os.PathLike[str],
    *,
    sample: int | None = SAMPLE,
    seed: int = 0,
    memory: int | None = None,
    models: Mapping[str, str] | None = None,
    threads: int | None = None,
    on_step: OnStep = lambda step: None,
) -> Verification:
    """Check what a merge wrote: files, index, config.json, digests, values; and make some tensors again.

    Args:
        sample: how many tensors are made again from the inputs, drawn at random; None for all, 0 for none.
        seed: of that draw.
        memory: bytes that making tensors again may take; None takes a quarter of the machine's.
        models: where the inputs are now, by the names that the recipe has for them.
        threads: None takes the processors of this process.
        on_step: called with what comes next, for those who wait.

    Returns:
        Every check with what was found; nothing that is wrong with the folder raises.

    Raises:
        RecipeError: there is no such folder, or `models` names what the recipe does not.
        ResourceError: it cannot be read.
    """
    # os.path, unlike pathlib, answers for every path: too long, unknown ~user.
    path = Path(os.path.expanduser(folder))
    if os.path.isfile(path):
        raise RecipeError(
            f"{path} is a file; verify looks at folders that a merge made. Merge into another file and compare them: "
            f"pymerge verify {path} OTHER"
        )
    if not os.path.isdir(path):
        raise RecipeError(f"{path}: there is no such folder; name the one that a merge made")
    try:
        next(path.iterdir(), None)
    except OSError as error:
        raise ResourceError(f"{path}: cannot be read: {error.strerror or error}") from None
    manifest, known = read_manifest(path)
    adapter = manifest.is_adapter if manifest else _looks_like_adapter(path)
    tensors, structure = read_shards(path, manifest, *(WEIGHTS[:1] if adapter else ()))
    config = check_adapter_config(path, manifest) if adapter else check_config(path, tensors, manifest)
    checks = [known, *structure, config]
    on_step(f"reading {len(tensors):,} tensors")
    checks += check_contents(tensors, manifest, threads or usable_processors())
    again, made = _make_again(
        path, manifest, tensors, models or {}, sample, seed, memory or usable_memory() // 4, on_step
    )
    return Verification(path, (*checks, *again), made)


def _looks_like_adapter(folder: Path) -> bool:
    return (folder / ADAPTER).is_file() and not (folder / CONFIG).is_file()


def _make_again(
    folder: Path,
    manifest: Manifest | None,
    tensors: Mapping[str, StoredTensor],
    models: Mapping[str, str],
    sample: int | None,
    seed: int,
    memory: int,
    on_step: OnStep,
) -> tuple[tuple[Check, ...], tuple[Recomputed, ...]]:
    if sample == 0:
        return (), ()
    if manifest is None:
        return (Check.skip("recomputed", "there is no manifest that could be read"),), ()
    plan, check = find_inputs(folder, manifest, models)
    if plan is None:
        return (check, Check.skip("recomputed", "the inputs are not those of the merge, or not there")), ()
    if manifest.is_adapter:
        try:
            plan, _ = convert_plan(plan)
        except RecipeError as error:
            wrong = tuple(Finding(str(problem)) for problem in error.problems)
            return (check, Check("recomputed", "the recipe makes no adapter", wrong)), ()
    undigested = [name for name, digest in (manifest.digests or {}).items() if digest is None]
    recomputed, made = recompute(
        plan, tensors, sample=sample, seed=seed, memory=memory, undigested=undigested, on_step=on_step
    )
    return (check, recomputed), made
