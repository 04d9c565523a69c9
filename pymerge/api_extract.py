"""The Python interface to extracting adapters."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pymerge.api import make_locate
from pymerge.extract.plan import plan_extraction
from pymerge.extract.run import extract
from pymerge.extract.values import Extraction, ExtractionPlan, OnStep, Options

__all__ = ["Extraction", "ExtractionPlan", "extract_lora", "plan_lora"]


def extract_lora(
    model: str | os.PathLike[str],
    base_model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    max_rank: int = 128,
    energy: float | None = None,
    sv_epsilon: float = 0.0,
    distribute_scale: bool = True,
    embed_lora: bool = False,
    save_modules: Sequence[str] = (),
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    skip_undecomposable: bool = False,
    method: str = "auto",
    dtype: str | None = None,
    seed: int = 0,
    threads: int | None = None,
    memory: int | None = None,
    overwrite: bool = False,
    cache: str | os.PathLike[str] | None = None,
    on_step: OnStep | None = None,
) -> Extraction:
    """Write what a fine-tuned model adds to its base as a LoRA adapter, which PEFT and recipes (`base+adapter`) read.

    Args:
        model: the fine-tuned model, as recipes name models; base_model: the one that it comes from.
        out: the folder to make; must be empty or absent unless `overwrite`.
        max_rank: of the factors of a matrix.
        energy: take the least rank, up to `max_rank`, that keeps this share of the sum of the difference's squares.
        sv_epsilon: drop singular values up to this.
        distribute_scale: both factors get the roots of the singular values; else A gets them whole.
        embed_lora: embeddings and output head get factors too; else they are stored whole where they differ.
        save_modules: modules that are stored whole, by name or last part.
        include, exclude: regular expressions, searched for in names of modules; which are looked at.
        skip_undecomposable: leave out what is no matrix, instead of storing it whole.
        method: "exact" finds all singular values; "randomized" the largest, by a sketch; "auto" takes a sketch where
            it is faster.
        dtype: of the factors; None takes the model's own.
        seed: of the sketch's draws.
        threads: matrices that are decomposed at once; None takes the processors of this process.
        memory: bytes that they may take; None takes the machine's.
        overwrite: replace the adapter that `out` holds.
        cache: the folder of the hub's cache; None for the environment's.
        on_step: told what was done.

    Returns:
        What became of every tensor, with the error of every matrix.

    Raises:
        RecipeError: options, models or output folder cannot work; nothing differs, or what no adapter can hold.
        FormatError, ShapeError, DTypeError: a model cannot be read, or the two do not fit together.
        NonFiniteError: a difference is infinite or NaN.
        ResourceError: disk or memory ran out, or another run is writing to `out`.
    """
    plan = plan_lora(
        model,
        base_model,
        max_rank=max_rank,
        energy=energy,
        sv_epsilon=sv_epsilon,
        distribute_scale=distribute_scale,
        embed_lora=embed_lora,
        save_modules=tuple(save_modules),
        include=tuple(include),
        exclude=tuple(exclude),
        skip_undecomposable=skip_undecomposable,
        method=method,
        dtype=dtype,
        seed=seed,
        threads=threads,
        memory=memory,
        cache=cache,
    )
    coming = None
    if plan.missing:
        from pymerge.hub import Fetcher

        coming = Fetcher(plan.missing, cache)
    return extract(plan, Path(out), overwrite=overwrite, coming=coming, on_step=on_step)


def plan_lora(
    model: str | os.PathLike[str],
    base_model: str | os.PathLike[str],
    *,
    threads: int | None = None,
    memory: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    **options: Any,
) -> ExtractionPlan:
    """Plan an extraction; no weight is read. Arguments and errors are those of `extract_lora`."""
    return plan_extraction(
        os.fspath(model),
        os.fspath(base_model),
        Options(**options),
        locate=make_locate(cache),
        threads=threads,
        memory=memory,
    )
