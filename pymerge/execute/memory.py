"""Merging tensors that are already in memory: the same programs and kernels, no files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pymerge.backends.protocol import Ops
from pymerge.config import suggest_name
from pymerge.config.numbers import plain_scalar, whole_number
from pymerge.dtypes import BY_NAME, DType, promote
from pymerge.errors import DTypeError, RecipeError, ShapeError
from pymerge.execute.arrays import from_array, kind_of, make_array, ops_for, to_array
from pymerge.kernels.common.convert import NUMPY_DTYPES
from pymerge.methods import get_method, method_names
from pymerge.methods._task_vectors import random_rules, ranked_rules
from pymerge.methods.base import BaseRule, Inputs, Method, Parameter, Value, _Required
from pymerge.ops import KEEP_ALL, KEEP_NONE, Combine, Cut, MaskRule, Select, TopK
from pymerge.plan.parameters import convert_value
from pymerge.schedule.machine import usable_processors

__all__ = [
    "Settings",
    "check_arity",
    "count_threads",
    "find_combine",
    "find_method",
    "mask",
    "merge_tensors",
    "run_program",
]

#: What `mask` knows.
_RULES = ("magnitude", "random", "ranked")


def merge_tensors(
    method: str,
    tensors: Sequence[Any],
    *,
    base: Any = None,
    parameters: Mapping[str, Value | Sequence[Value]] | None = None,
    dtype: str | None = None,
    name: str = "tensor",
    seed: int = 0,
    backend: str = "auto",
    threads: int | None = None,
) -> Any:
    """Merge tensors in memory as a recipe would merge them from files, to the same bytes.

    Args:
        method: a name of `pymerge methods`.
        tensors: the models' tensors without the base, in recipe order: numpy arrays (ml_dtypes'
            bfloat16 included) or torch tensors on one device, of one shape, float64, float32, float16 or bfloat16.
        base: the base model's tensor, for methods that have one.
        parameters: by name; a per-model parameter takes one value for all models or one each.
        dtype: the result's type; None promotes the inputs' types.
        name, seed: what random methods draw by: give the tensor's name to get a recipe's bytes.
        backend, threads: as on the command line; None takes every processor.

    Returns:
        A new array, of torch's kind if the first tensor is, of the inputs' shape; where tensors are on a GPU, it is
        computed and stays there, on the current stream.

    Raises:
        RecipeError: unknown method or parameter, a bad value, the wrong number of tensors.
        ShapeError, DTypeError: the tensors do not fit together or cannot be merged.
        BackendError: the backend cannot run, or not where the tensors are.
    """
    seed, threads = whole_number("seed", seed), count_threads(threads)
    declared = find_method(method)
    check_arity(declared, len(tensors), base is not None)
    arrays = [to_array(tensor) for tensor in (*tensors, *([] if base is None else [base]))]
    kinds = _check_arrays(arrays)
    out_kind = promote(kinds) if dtype is None else _mergeable(dtype)
    compute = BY_NAME["float64" if "float64" in {*(kind.name for kind in kinds), out_kind.name} else "float32"]
    settings = Settings.read(declared, parameters or {}, len(tensors))
    count = math.prod(arrays[0].shape)
    inputs = Inputs(
        name=name,
        count=count,
        base=None if base is None else len(tensors),
        models=tuple(range(len(tensors))),
        values=settings.values,
        per_model=settings.per_model,
        places=tuple(range(len(tensors))),
        seed=seed,
        wide=compute.name == "float64",
        shape=tuple(arrays[0].shape),
    )
    out = make_array(count, out_kind.name, like=arrays[0])
    ops = ops_for(arrays, backend, threads)
    run_program(declared, inputs, ops, [array.reshape(-1) for array in arrays], compute, out)
    return from_array(out.reshape(arrays[0].shape), like=tensors[0] if tensors else base)


@dataclass(frozen=True, slots=True)
class Settings:
    """Parameters of a merge in memory, as `Inputs` has them."""

    values: Mapping[str, Value | None]
    per_model: Mapping[str, tuple[Value | None, ...]]

    @classmethod
    def read(cls, method: Method, given: Mapping[str, Any], models: int) -> Settings:
        """Resolve and check what a caller gave.

        Raises:
            RecipeError: a parameter is unknown, missing, of a bad value or of the wrong length.
        """
        _check_names(method, given)
        return cls(
            {p.name: _one_value(method, p, given) for p in method.parameters if not p.per_model},
            {p.name: _values(method, p, given, models) for p in method.parameters if p.per_model},
        )


def run_program(
    method: Method,
    inputs: Inputs,
    ops: Ops,
    operands: list[Any],
    compute: DType,
    out: Any,
    group_cuts: tuple[Cut, ...] | None = None,
) -> None:
    """Run a method's program on flat arrays; `group_cuts` answers its first select."""
    ops.combine(find_combine(method, inputs, ops, operands, compute, group_cuts), operands, compute, out)


def find_combine(
    method: Method,
    inputs: Inputs,
    ops: Ops,
    operands: list[Any],
    compute: DType,
    group_cuts: tuple[Cut, ...] | None = None,
) -> Combine:
    """Run the measures of a method's program; returns the combine that it ends with."""
    program = method.program(inputs)
    answer: object = None
    while True:
        try:
            request = program.send(answer)
        except StopIteration as stop:
            combine: Combine = stop.value
            return combine
        answer, group_cuts = group_cuts or ops.measure(request, operands, compute), None


def find_method(name: str) -> Method:
    """The method of this name.

    Raises:
        RecipeError: there is none.
    """
    if name not in method_names():
        raise RecipeError(f'unknown method "{name}"; {suggest_name(name, method_names(), "methods")}')
    return get_method(name)


def mask(
    delta: Any,
    *,
    density: float,
    rule: str = "magnitude",
    epsilon: float = 0.15,
    name: str = "tensor",
    seed: int = 0,
    place: int = 0,
    backend: str = "auto",
) -> Any:
    """The int8 mask (0 or 1) that a merge would apply to a task vector.

    Args:
        delta: a float32 or float64 task vector, any shape, numpy or torch.
        density: share of elements to keep, 0 to 1.
        rule: "magnitude" (TIES: exactly max(1, int(density * n)) largest, ties to the lowest flat
            index), "random" (DARE: each element with probability density), or "ranked" (DELLA: with
            probabilities from density - epsilon to density + epsilon, by the rank of its magnitude
            among those along the last dimension).
        epsilon: read by "ranked" alone.
        name, seed, place: what random rules draw by: output tensor, recipe seed, and the model's
            place among the recipe's models, base not counted.

    Returns:
        An int8 array of the same shape and kind.

    Raises:
        RecipeError: unknown rule; a density, epsilon or probabilities outside [0, 1]; a seed that is not whole.
        DTypeError: `delta` is neither float32 nor float64.
    """
    if rule not in _RULES:
        raise RecipeError(f'mask: unknown rule "{rule}"; it is {", ".join(_RULES[:-1])} or {_RULES[-1]}')
    for bounded, number in (("density", density), ("epsilon", epsilon)):
        if not 0 <= number <= 1:
            raise RecipeError(f"mask: {bounded} = {number:g} must be in [0, 1]")
    seed = whole_number("seed", seed)
    array = to_array(delta)
    flat, count = array.reshape(-1), math.prod(array.shape)
    kind = kind_of(array)
    if kind not in ("float32", "float64"):
        raise DTypeError(f"mask: a task vector is float32 or float64, not {array.dtype}")
    ops = ops_for([array], backend)
    made: MaskRule
    if density in (0, 1) or count == 0:
        made = KEEP_ALL if density == 1 else KEEP_NONE
    elif rule == "magnitude":
        keep = max(1, int(density * count))
        cuts = cast("tuple[Cut]", ops.measure(Select((0,), (keep,)), [flat], BY_NAME[kind]))
        made = TopK(cuts[0])
    else:
        keyed = Inputs(
            name=name,
            count=count,
            base=None,
            models=(0,),
            per_model={"weight": (1.0,), "density": (density,), "epsilon": (epsilon,)},
            places=(place,),
            seed=seed,
            shape=tuple(array.shape),
        )
        (made,) = random_rules(keyed) if rule == "random" else ranked_rules(keyed, "mask")
    out = make_array(count, "int8", like=array)
    ops.mask(made, flat, out)
    return from_array(out.reshape(array.shape), like=delta)


def count_threads(threads: int | None) -> int:
    """Worker threads: as many as asked for, or all processors.

    Raises:
        RecipeError: less than one.
    """
    return usable_processors() if threads is None else whole_number("threads", threads, least=1)


def check_arity(method: Method, models: int, has_base: bool) -> None:
    """Refuse a number of models, or a base or the lack of one, that the method does not take.

    Raises:
        RecipeError: as said.
    """
    wants = method.base is BaseRule.REQUIRED
    if has_base != wants and method.base is not BaseRule.OPTIONAL:
        advice = "give it as base=" if wants else "list it among the tensors"
        raise RecipeError(f"{method.name} {'needs a' if wants else 'takes no'} base; {advice}")
    if models < method.minimum or (method.maximum is not None and models > method.maximum):
        least, most = method.minimum, method.maximum
        bounds = f"at least {least}" if most is None else f"exactly {least}" if least == most else f"{least} to {most}"
        advice = f"; {method.instead}" if models > least and method.instead else ""
        raise RecipeError(f"{method.name} takes {bounds} tensors besides the base, not {models}{advice}")


def _check_arrays(arrays: list[Any]) -> tuple[DType, ...]:
    for array in arrays:
        if array.shape != arrays[0].shape:
            raise ShapeError(f"tensors of shapes {list(arrays[0].shape)} and {list(array.shape)} cannot be merged")
    return tuple(_mergeable(kind_of(array) or str(array.dtype)) for array in arrays)


def _mergeable(name: str) -> DType:
    if name not in NUMPY_DTYPES:
        raise DTypeError(f"tensors of {name} cannot be merged; convert them to one of {', '.join(NUMPY_DTYPES)}")
    return BY_NAME[name]


def _check_names(method: Method, given: Mapping[str, object]) -> None:
    known = [parameter.name for parameter in method.parameters]
    for name in given:
        if name not in known:
            hint = suggest_name(name, known, f"parameters of {method.name}")
            raise RecipeError(f"{method.name} does not read {name}; {hint}")


def _convert(method: Method, parameter: Parameter, value: Any) -> Value:
    scalar = plain_scalar(value)
    if scalar is None:
        raise RecipeError(f"{method.name}: {parameter.name} = {value!r} is neither a number nor a text")
    try:
        return convert_value(parameter, scalar)
    except ValueError as error:
        raise RecipeError(f"{method.name}: {parameter.name} = {value} {error}") from None


def _one_value(method: Method, parameter: Parameter, given: Mapping[str, Any]) -> Value | None:
    if parameter.name in given:
        return _convert(method, parameter, given[parameter.name])
    if isinstance(parameter.default, _Required):
        raise RecipeError(f"{method.name} needs {parameter.name}: {parameter.doc}")
    return parameter.default


def _values(method: Method, parameter: Parameter, given: Mapping[str, Any], size: int) -> tuple[Value | None, ...]:
    value = given.get(parameter.name)
    if value is None or plain_scalar(value) is not None:
        return (_one_value(method, parameter, given),) * size
    if not isinstance(value, Sequence) and not hasattr(value, "shape"):
        kind = type(value).__name__
        raise RecipeError(f"{method.name}: {parameter.name} is a {kind}; give one value, or a list with one each")
    if len(value) != size:
        raise RecipeError(f"{method.name}: {parameter.name} has {len(value)} values for {size} tensors")
    return tuple(_convert(method, parameter, item) for item in value)
