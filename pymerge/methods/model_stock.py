"""Average fine-tunes and pull the average towards the base by the angle between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

from pymerge.errors import RecipeError
from pymerge.methods._lines import cut_lines, sum_lines
from pymerge.methods._weighted import span_sum
from pymerge.methods.base import BaseRule, Inputs, Method, Parameter
from pymerge.ops import Copy, Gram, Program

#: Floor of the product of two norms, and of the ratio's denominator (the peer's values).
_FLOOR = 1e-6


def interpolation_ratio(gram: Sequence[Sequence[float]]) -> float:
    """Ratio t = K c / (1 + (K - 1) c), c = mean cosine over the pairs of K task vectors (eq. 5)."""
    size = len(gram)
    cosines = []
    for i, j in combinations(range(size), 2):
        length = math.sqrt(gram[i][i]) * math.sqrt(gram[j][j])
        cosines.append(min(1.0, max(-1.0, gram[i][j] / max(length, _FLOOR))))
    mean = sum(cosines) / len(cosines)
    denominator = 1.0 + (size - 1) * mean
    return size * mean / denominator if abs(denominator) >= _FLOOR else 0.0


def _program(inputs: Inputs) -> Program:
    assert inputs.base is not None
    if not inputs.models:
        return Copy(inputs.base)
    if len(inputs.models) < 2:
        raise RecipeError(f"model_stock: {inputs.name} is in one model only; it needs two besides the base")
    size = len(inputs.models)
    lines = cut_lines(inputs, "model_stock", "set filter_wise: false") if inputs.flag("filter_wise") else None
    if lines:
        return (yield from sum_lines(inputs, lines, lambda gram: (interpolation_ratio(gram) / size,) * size))
    gram = yield Gram(inputs.models, inputs.base)
    t = interpolation_ratio(gram)
    return span_sum(inputs.base, inputs.models, (t / size,) * size)


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
