"""Spherical interpolation between two models by their weights, or between their task vectors."""

from __future__ import annotations

import math
from functools import partial

from pymerge.methods._lines import cut_lines, sum_lines
from pymerge.methods._weighted import cosine, span_sum
from pymerge.methods.base import BaseRule, Inputs, Method, Parameter
from pymerge.ops import Copy, Gram, Program

#: Weights that sum to less than this count as equal; a shorter vector is not scaled to unit length.
_NO_SUM, _SHORTEST = 1e-6, 1e-7
#: Below this squared sine the arc is taken for straight. Between vectors of one direction that moves a
#: coefficient by less than float32 resolves; between opposite ones the arc is undefined, and its
#: coefficients would grow until their rounding is what is left.
_STRAIGHT = 1e-8


def arc_coefficients(t: float, first: float, product: float, second: float) -> tuple[float, float]:
    """Coefficients (a, b) of the arc a V_0 + b V_1 at t, from (V_0, V_0), (V_0, V_1) and (V_1, V_1); lengths are kept.

    Comparisons instead of min and max, which cost more than the sines: this may run once a row.
    """
    first, second = math.sqrt(first), math.sqrt(second)
    length = (_SHORTEST if first < _SHORTEST else first) * (_SHORTEST if second < _SHORTEST else second)
    c = product / length
    if not -1.0 < c < 1.0:
        c = cosine(product, length)
    if 1.0 - c * c <= _STRAIGHT:
        return 1.0 - t, t
    angle = math.acos(c)
    sine = math.sin(angle)
    return math.sin((1.0 - t) * angle) / sine, math.sin(t * angle) / sine


def _program(inputs: Inputs) -> Program:
    if len(inputs.models) < 2:
        present = (*inputs.models, *(() if inputs.base is None else (inputs.base,)))
        return Copy(present[0])
    first, second = inputs.numbers("weight")
    t = second / (first + second) if abs(first + second) >= _NO_SUM else 0.5
    if t in (0.0, 1.0):
        return Copy(inputs.models[int(t)])
    if not inputs.flag("nuslerp_flatten"):
        columns = inputs.flag("nuslerp_row_wise")
        lines = cut_lines(inputs, "nuslerp", "set nuslerp_flatten: true", columns=columns)
        if lines:
            return (yield from sum_lines(inputs, lines, partial(arc_coefficients, t)))
    gram = yield Gram(inputs.models, inputs.base)
    return span_sum(inputs.base, inputs.models, arc_coefficients(t, gram[0][0], gram[0][1], gram[1][1]))


METHOD = Method(
    name="nuslerp",
    title="Spherical interpolation by weights",
    formula="Y = B + (sin((1-t)a) D_1 + sin(ta) D_2) / sin(a), t = w_2 / (w_1 + w_2), a = angle(D_1, D_2); "
    "without a base D_i = X_i and B = 0",
    reference="Shoemake 1985, Animating rotation with quaternion curves; here on task vectors",
    base=BaseRule.OPTIONAL,
    program=_program,
    parameters=(
        Parameter("weight", float, "share of this model", per_model=True),
        Parameter("nuslerp_flatten", bool, "one angle per tensor; false: one per row or column", default=True),
        Parameter(
            "nuslerp_row_wise", bool, "without flatten: vectors along the first dim, not the last", default=False
        ),
    ),
    minimum=2,
    maximum=2,
    instead="merge two of them first and the result with the next one, or take karcher or multislerp",
)
