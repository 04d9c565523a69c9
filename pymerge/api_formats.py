"""In which format an output is asked for, and the plan and schedule of one that is a GGUF file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pymerge.checkpoint.kinds import GGUF_KINDS, GGUF_SUFFIX
from pymerge.config.values import MergeConfig
from pymerge.errors import RecipeError
from pymerge.plan.values import MergePlan
from pymerge.schedule import Schedule, make_schedule

__all__ = ["ADAPTER", "find_form", "plan_for_file", "schedule_gguf"]

_ANY = "any"
ADAPTER = "adapter"


def find_form(out: Path, out_format: str | None, like: object = None) -> str | None:
    """The type of a GGUF file's matrices that is asked for, "any" if none is; `ADAPTER`; None for a model's folder.

    Args:
        out_format: "safetensors", "adapter", "gguf", or "gguf:" and a type; None goes by the name of `out`.
        like: a GGUF file that is to be followed, if there is one.

    Raises:
        RecipeError: it is none of these, or cannot follow a GGUF file.
    """
    name, _, kind = (out_format or ("gguf" if out.suffix == GGUF_SUFFIX else "safetensors")).lower().partition(":")
    if name in ("safetensors", ADAPTER) and not kind:
        if like:
            raise RecipeError(f'"{like}" is followed by GGUF files alone; add --out-format gguf, or leave it out')
        return ADAPTER if name == ADAPTER else None
    if name == "gguf" and kind.upper() in (*GGUF_KINDS, ""):
        return kind.upper() or _ANY
    kinds = ", ".join(f"gguf:{kind.lower()}" for kind in GGUF_KINDS)
    known = f"safetensors, adapter, gguf, {kinds}"
    raise RecipeError(f'the output cannot be in the format "{out_format}"; it is one of {known}')


def plan_for_file(planned: MergePlan, make: Callable[[MergeConfig], MergePlan]) -> MergePlan:
    """The plan that can be written as a GGUF file: another one where groups of tensors are looked at first.

    Raises:
        RecipeError: the model is of a family that is not written.
    """
    # Most merges do without what knows these files.
    from pymerge.plan.gguf import find_written_family, merge_before

    find_written_family(planned)
    return make(merge_before(planned.config)) if planned.group_selects else planned


def schedule_gguf(
    planned: MergePlan, path: Path, form: str, *, like: Path | None, threads: int | None, memory: int | None
) -> Schedule:
    """Lay out the file.

    Args:
        form: as `find_form` gives it.
        like: see `make_head`.

    Raises:
        RecipeError, FormatError, ResourceError: as `convert_plan`, `make_head` and `make_schedule`.
    """
    from pymerge.output.gguf import make_head
    from pymerge.plan.gguf import convert_plan, find_kind

    kind = find_kind(planned) if form == _ANY else form
    converted = convert_plan(planned, kind)
    head = make_head(converted, path.stem, kind, like)
    return make_schedule(converted, shard_size=0, threads=threads, memory=memory, single=path.name, head=head)
