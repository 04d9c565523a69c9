"""One formula per row or column of a tensor: how tensors are cut, and the numbers that come out."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from itertools import chain, starmap

from pymerge.errors import RecipeError
from pymerge.methods.base import Inputs
from pymerge.ops import Combine, Gram, Lines, Steps, WeightedSum

__all__ = ["cut_lines", "sum_lines"]

#: Inner products of a tensor that are kept in memory: 32 MiB. Five models of 262,208 rows fit.
_MOST = 1 << 22


def cut_lines(inputs: Inputs, method: str, advice: str, *, columns: bool = False) -> Lines | None:
    """Vectors along the last dim, or along the first one; None if the tensor is a single vector (or empty).

    Raises:
        RecipeError: there are too many of them; `advice` is what the recipe can say instead.
    """
    length = (inputs.shape[0] if columns else inputs.shape[-1]) if inputs.shape else 1
    if inputs.count == length or not inputs.count:
        return None
    lines = Lines(inputs.count // length, length, columns)
    most = _MOST // (len(inputs.models) * (len(inputs.models) + 1) // 2)
    if lines.count > most:
        raise RecipeError(
            f"{method}: {inputs.name} {list(inputs.shape)} has {lines.count} vectors of {length}, and numbers are "
            f"kept for {most} at most, given {len(inputs.models)} models; {advice}"
        )
    return lines


def sum_lines(inputs: Inputs, lines: Lines, decide: Callable[..., Sequence[float]]) -> Steps[Combine]:
    """Measure every line, decide its coefficients from its inner products, combine line by line.

    Args:
        decide: given the products of the pairs (0, 0), (0, 1), ..., (1, 1), ... as arguments. A model has some
            100,000 rows a billion parameters, so what it does not need to do counts.
    """
    size = len(inputs.models)
    sums = iter((yield Gram(inputs.models, inputs.base, lines)))
    of_lines = zip(*[sums] * (size * (size + 1) // 2), strict=True)
    decided = array("d", chain.from_iterable(starmap(decide, of_lines)))
    coefficients = array("d")
    for model in range(size):
        coefficients.extend(decided[model::size])
    return WeightedSum(inputs.models, coefficients, inputs.base, lines)
