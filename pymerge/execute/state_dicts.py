"""Merging whole models that are in memory: names to tensors in, names to tensors out, as from files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pymerge.backends.protocol import Ops
from pymerge.checkpoint.names import find_layer, is_buffer
from pymerge.config.numbers import whole_number
from pymerge.dtypes import BY_NAME, DType, promote
from pymerge.errors import DTypeError, RecipeError, ShapeError
from pymerge.execute.arrays import (
    copy_array,
    first_difference,
    from_array,
    is_integer,
    kind_of,
    make_array,
    ops_for,
    to_array,
)
from pymerge.execute.groups import find_group_cuts
from pymerge.execute.memory import Settings, check_arity, count_threads, find_method, run_program
from pymerge.kernels.common.convert import NUMPY_DTYPES
from pymerge.methods.base import BaseRule, Inputs, Method, Value
from pymerge.ops import Copy, Cut, Measure
from pymerge.plan.groups import list_group_selects
from pymerge.plan.values import TensorTask

__all__ = ["merge_state_dicts"]

StateDict: TypeAlias = Mapping[str, Any]

#: Tensors named in a message about many.
_SHOWN = 3


def merge_state_dicts(
    method: str,
    state_dicts: Sequence[StateDict],
    *,
    base: StateDict | None = None,
    parameters: Mapping[str, Value | Sequence[Value]] | None = None,
    dtype: str | None = None,
    seed: int = 0,
    lenient: bool = False,
    backend: str = "auto",
    threads: int | None = None,
) -> dict[str, Any]:
    """Merge models in memory as a recipe would merge them from files, to the same bytes.

    Args:
        method: a name of `pymerge methods`.
        state_dicts: the models without the base, in recipe order: names to numpy arrays (ml_dtypes' bfloat16
            included) or torch tensors, all on one device. What is not float64, float32, float16 or bfloat16
            must agree in all models and is copied; so are buffers that models compute by themselves (from the
            base, or the first).
        base: the base model, for methods that have one.
        parameters: by name, the same for every tensor; a per-model parameter takes one value for all models or
            one each.
        dtype: the type of the result's tensors; None promotes the inputs' types, tensor by tensor.
        seed: of random masks.
        lenient: merge tensors that some models lack from those that have them, or copy where they are too few.
        backend, threads: as on the command line; None takes every processor.

    Returns:
        A new dict, in the order of the base (or the first model); new tensors, of torch's kind where the first
        model's is.

    Raises:
        RecipeError: unknown method or parameter, a bad value, the wrong number of models.
        ShapeError: models lack tensors (unless `lenient`), or tensors differ in shape.
        DTypeError: tensors cannot be merged, and are not the same.
    """
    seed, threads = whole_number("seed", seed), count_threads(threads)
    declared = find_method(method)
    check_arity(declared, len(state_dicts), base is not None)
    models = [*state_dicts, *([] if base is None else [base])]
    if not models:
        raise RecipeError(f"{method}: there is no model to merge; give state_dicts, or a base")
    settings = Settings.read(declared, parameters or {}, len(state_dicts))
    names = list(dict.fromkeys(name for model in (*models[len(state_dicts) :], *models) for name in model))
    if not lenient:
        _check_complete(models, names, base is not None)
    out_kind = None if dtype is None else _mergeable(dtype, "the result")
    jobs = [_make_job(declared, settings, name, models, base is not None, out_kind, seed) for name in names]
    _check_shapes(jobs)
    ops = ops_for(
        (array for job in jobs for array in job.arrays),
        backend,
        threads,
    )
    cuts = _find_cuts(declared, jobs, ops)
    return {job.task.name: job.run(declared, ops, cuts.get(number)) for number, job in enumerate(jobs)}


@dataclass(slots=True)
class _Job:
    """One output tensor: its task as a plan would have it, and the data."""

    task: TensorTask
    arrays: list[Any]
    like: Any

    def flat(self) -> list[Any]:
        return [array.reshape(-1) for array in self.arrays]

    def run(self, method: Method, ops: Ops, cuts: tuple[Cut, ...] | None) -> Any:
        first, inputs = self.arrays[0], self.task.inputs
        kind = self.task.dtype.name
        if kind not in NUMPY_DTYPES or (inputs is None and kind_of(first) == kind):
            return from_array(copy_array(first), like=self.like)
        out = make_array(math.prod(first.shape), kind, like=first)
        if inputs is None:
            ops.combine(Copy(0), self.flat()[:1], self.task.compute, out)
        else:
            run_program(method, inputs, ops, self.flat(), self.task.compute, out, cuts)
        return from_array(out.reshape(first.shape), like=self.like)


def _make_job(
    method: Method,
    settings: Settings,
    name: str,
    models: Sequence[StateDict],
    has_base: bool,
    out_kind: DType | None,
    seed: int,
) -> _Job:
    """What pymerge.plan.tasks decides for files: merge, or copy, and from which models."""
    present = [place for place, model in enumerate(models) if name in model]
    arrays = [to_array(models[place][name]) for place in present]
    labels = tuple(_label(place, len(models), has_base) for place in present)
    kinds = [kind_of(array) for array in arrays]
    tuned = [place for place in present if not (has_base and place == len(models) - 1)]
    based = has_base and present[-1] == len(models) - 1
    chosen, inputs = range(len(arrays)), None
    buffer = is_buffer(name, arrays[0].shape)
    same = len({(array.shape, array.dtype) for array in arrays}) == 1
    if buffer and (kinds[0] is not None or not same):
        chosen = range(len(arrays) - 1, len(arrays)) if based else range(1)
    elif None in kinds:
        _check_agreement(name, arrays, labels)
        chosen = range(1)
    elif not _are_enough(method, len(tuned), len(present) == len(models), has_base and not based):
        chosen = range(1)
    else:
        types = tuple(BY_NAME[kind] for kind in kinds if kind)
        stored = out_kind or promote(types)
        wide = "float64" in {stored.name, *kinds}
        shape = tuple(arrays[0].shape)
        inputs = Inputs(
            name=name,
            count=math.prod(shape),
            base=len(tuned) if based else None,
            models=tuple(range(len(tuned))),
            values=settings.values,
            per_model={key: tuple(row[place] for place in tuned) for key, row in settings.per_model.items()},
            places=tuple(tuned),
            seed=seed,
            wide=wide,
            shape=shape,
            layer=find_layer(name),
        )
        task = TensorTask(name, shape, stored, (), labels, inputs, BY_NAME["float64" if wide else "float32"])
        return _Job(task, arrays, models[present[0]][name])
    arrays = [arrays[index] for index in chosen]
    kind = kind_of(arrays[0])
    stored = BY_NAME["uint8"] if kind is None else BY_NAME[kind] if buffer or out_kind is None else out_kind
    compute = BY_NAME["float64" if kind == "float64" else "float32"]
    task = TensorTask(name, tuple(arrays[0].shape), stored, (), tuple(labels[i] for i in chosen), None, compute)
    return _Job(task, arrays, models[present[chosen[0]]][name])


def _label(place: int, count: int, has_base: bool) -> str:
    return "the base" if has_base and place == count - 1 else f"model {place}"


def _are_enough(method: Method, count: int, complete: bool, lacks_base: bool) -> bool:
    if complete:
        return True
    if lacks_base and method.base is BaseRule.REQUIRED:
        return False
    return count >= max(method.minimum, 1) and (method.maximum is None or count <= method.maximum)


def _check_complete(models: Sequence[StateDict], names: Iterable[str], has_base: bool) -> None:
    for place, model in enumerate(models):
        lacking = [
            name
            for name in names
            if name not in model and not is_buffer(name, next(m[name].shape for m in models if name in m))
        ]
        if lacking:
            raise ShapeError(
                f"{_label(place, len(models), has_base)} lacks {len(lacking)} of the tensors that others have: "
                f"{_list_names(lacking)}; lenient=True merges these from the models that have them"
            )


def _check_shapes(jobs: Sequence[_Job]) -> None:
    wrong = [job for job in jobs if len({array.shape for array in job.arrays}) > 1]
    if wrong:
        shown = "; ".join(
            f'"{job.task.name}": '
            + ", ".join(
                f"{label} {list(array.shape)}" for label, array in zip(job.task.labels, job.arrays, strict=True)
            )
            for job in wrong[:_SHOWN]
        )
        raise ShapeError(f"shapes differ in {len(wrong)} tensors: {shown}; only models of one size can be merged")


def _check_agreement(name: str, arrays: Sequence[Any], labels: Sequence[str]) -> None:
    first = arrays[0]
    alike = all(array.dtype == first.dtype and array.shape == first.shape for array in arrays)
    if not alike or (len(arrays) > 1 and not is_integer(first)):
        listed = ", ".join(f"{label} {array.dtype}" for label, array in zip(labels, arrays, strict=True))
        raise DTypeError(
            f'tensor "{name}" has types that cannot be merged: {listed}; weights must be float64, float32, float16 '
            "or bfloat16"
        )
    for array, label in zip(arrays[1:], labels[1:], strict=True):
        if (at := first_difference(array, first)) is not None:
            raise DTypeError(
                f'tensor "{name}": element {at} differs between {labels[0]} and {label}, and integers cannot be '
                "merged; make the copies agree or leave the tensor out of one model"
            )


def _mergeable(name: str, what: str) -> DType:
    if name not in NUMPY_DTYPES:
        raise DTypeError(f"{what} cannot be {name}; it is one of {', '.join(NUMPY_DTYPES)}")
    return BY_NAME[name]


def _list_names(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _find_cuts(method: Method, jobs: Sequence[_Job], ops: Ops) -> dict[int, tuple[Cut, ...]]:
    """Answers to the selects of groups, which look at many tensors."""
    tasks = [job.task for job in jobs]
    found = list_group_selects(method, tasks)
    # By name, as a plan has them: that decides which of equal magnitudes count as the larger.
    selects = dict(sorted(found.items(), key=lambda item: tasks[item[0]].name))
    if not selects:
        return {}

    def measure(requests: Mapping[int, Measure]) -> Iterator[tuple[int, Any]]:
        for number, request in requests.items():
            yield number, ops.measure(request, jobs[number].flat(), jobs[number].task.compute)

    return find_group_cuts(tasks, selects, measure)
