"""The point on the sphere whose squared distances to all models add up to the least."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pymerge.methods._weighted import cosine, norms_of, weighted_sum
from pymerge.methods.base import BaseRule, Inputs, Method, Parameter
from pymerge.ops import Copy, Gram, Program

#: Nothing can be told of a direction whose sine, or whose mean's length, is below this.
_UNRESOLVED = 1e-6


def _length(gram: Sequence[Sequence[float]], x: Sequence[float]) -> float:
    size = range(len(x))
    return math.sqrt(max(0.0, math.fsum(x[i] * x[j] * gram[i][j] for i in size for j in size)))


def mean_direction(gram: Sequence[Sequence[float]], max_iter: int, tol: float) -> list[float]:
    """Coordinates x of the Karcher mean u = sum_i x[i] u_i of n unit vectors, from their cosines.

    Gradient descent with unit step on the sphere. Every step stays in the span of the vectors, so it
    needs no more than their [n, n] Gram matrix, however many steps there are.
    """
    size = len(gram)
    x = [1.0 / size] * size
    length = _length(gram, x)
    # Vectors that cancel out have no mean; the first one is as near to all as any.
    x = [value / length for value in x] if length >= max(tol, _UNRESOLVED) else [1.0] + [0.0] * (size - 1)
    for _ in range(max_iter):
        step = [0.0] * size
        along = 0.0
        for i in range(size):
            d = cosine(math.fsum(gram[i][j] * x[j] for j in range(size)), 1.0)
            angle, sine = math.acos(d), math.sqrt(1.0 - d * d)
            if angle < tol or sine < _UNRESOLVED:
                continue
            step[i] = angle / sine / size
            along += step[i] * d
        step = [part - along * value for part, value in zip(step, x, strict=True)]
        reach = _length(gram, step)
        if reach < tol or reach == 0 or math.isnan(reach):
            break
        x = [math.cos(reach) * a + math.sin(reach) / reach * b for a, b in zip(x, step, strict=True)]
        length = _length(gram, x)
        x = [value / length for value in x] if length > tol else x
    return x


def _program(inputs: Inputs) -> Program:
    if len(inputs.models) == 1:
        return Copy(inputs.models[0])
    gram = yield Gram(inputs.models)
    norms = norms_of(gram)
    pointing = [i for i, norm in enumerate(norms) if norm != 0]
    cosines = [[1.0 if i == j else cosine(gram[i][j], norms[i] * norms[j]) for j in pointing] for i in pointing]
    coefficients = [0.0] * len(norms)
    if pointing:
        x = mean_direction(cosines, int(inputs.number("max_iter")), inputs.number("tol"))
        reach = math.fsum(norms) / len(norms)
        for i, value in zip(pointing, x, strict=True):
            coefficients[i] = reach * value / norms[i]
    return weighted_sum(inputs.models, coefficients)


METHOD = Method(
    name="karcher",
    title="Karcher mean",
    formula="Y = mean_i |X_i| u, u = argmin over unit vectors of sum_i angle(u, X_i)^2",
    reference="Karcher 1977 (doi:10.1002/cpa.3160300502); Buss and Fillmore 2001 (doi:10.1145/502122.502124)",
    base=BaseRule.INPUT,
    program=_program,
    parameters=(
        Parameter("max_iter", int, "steps at most; more of them read no more data", default=10, minimum=0),
        Parameter("tol", float, "length of the last step, in radians", default=1e-5, minimum=0.0),
    ),
)
