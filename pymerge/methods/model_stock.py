"""Average fine-tunes and pull the average towards the base by the angle between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, partial
from itertools import combinations

from pymerge.errors import RecipeError
from pymerge.methods._lines import cut_lines, sum_lines
from pymerge.methods._weighted import span_sum
from pymerge.methods.base import BaseRule, Inputs, Method, Parameter
from pymerge.ops import Copy, Gram, Program

#: Floor of the product of two norms, and of the ratio's denominator (the peer's values).
_FLOOR = 1e-6


@cache
def _places(size: int) -> tuple[tuple[int, int, int], ...]:
    """Where (i, i), (j, j) and (i, j) are among the pairs (0, 0), (0, 1), ..., (1, 1), ...: of all i < j."""
    start = [i * size - i * (i - 1) // 2 for i in range(size)]
    return tuple((start[i], start[j], start[i] + j - i) for i, j in combinations(range(size), 2))


def interpolation_ratio(size: int, products: Sequence[float]) -> float:
    """Ratio t = K c / (1 + (K - 1) c), c = mean cosine over the pairs of K task vectors (eq. 5).

    Comparisons instead of min and max, which cost more than the roots: this may run once a row.

    Args:
        products: of the pairs (0, 0), (0, 1), ..., (1, 1), ...
    """
    total = 0.0
    places = _places(size)
    for i, j, both in places:
        length = math.sqrt(products[i]) * math.sqrt(products[j])
        value = products[both] / (_FLOOR if length < _FLOOR else length)
        total += (1.0 if value > 1.0 else value) if value > -1.0 else -1.0
    mean = total / len(places)
    denominator = 1.0 + (size - 1) * mean
    return size * mean / denominator if abs(denominator) >= _FLOOR else 0.0


def _coefficients(size: int, *products: float) -> tuple[float, ...]:
    return (interpolation_ratio(size, products) / size,) * size


def _program(inputs: Inputs) -> Program:
    assert inputs.base is not None
    if not inputs.models:
        return Copy(inputs.base)
    if len(inputs.models) < 2:
        raise RecipeError(f"model_stock: {inputs.name} is in one model only; it needs two besides the base")
    size = len(inputs.models)
    lines = cut_lines(inputs, "model_stock", "set filter_wise: false") if inputs.flag("filter_wise") else None
    if lines:
        return (yield from sum_lines(inputs, lines, partial(_coefficients, size)))
    gram = yield Gram(inputs.models, inputs.base)
    products = (gram[i][j] for i in range(size) for j in range(i, size))
    return span_sum(inputs.base, inputs.models, _coefficients(size, *products))


METHOD = Method(
    name="model_stock",
    title="Model stock",
    formula="Y = t mean_i X_i + (1 - t) B, t = K c / (1 + (K - 1) c), c = mean cosine of the task vectors",
    reference="Jang et al. 2024, Model stock (arXiv:2403.19522), section 4",
    base=BaseRule.REQUIRED,
    program=_program,
    parameters=(Parameter("filter_wise", bool, "one ratio per row instead of per tensor", default=False),),
    minimum=2,
)
