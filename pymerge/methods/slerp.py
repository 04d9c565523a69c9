"""Spherical interpolation between a base and one other model."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pymerge.methods._weighted import weighted_sum
from pymerge.methods.base import BaseRule, Inputs, Method, Parameter
from pymerge.ops import Copy, Gram, Program

#: Above this cosine the arc is taken for straight (the value that published merges were made with).
_STRAIGHT = 0.9995
#: A shorter vector is not scaled to unit length before its angle is taken.
_SHORTEST = 1e-8


def arc_coefficients(gram: Sequence[Sequence[float]], t: float) -> tuple[float, float]:
    """Coefficients (a, b) of slerp(X_0, X_1; t) = a X_0 + b X_1, from the 2 x 2 Gram matrix.

    The vectors keep their lengths: only the angle between them is interpolated on the sphere.
    """
    norms = [math.sqrt(gram[i][i]) for i in (0, 1)]
    first, second = (norm if norm > _SHORTEST else 1.0 for norm in norms)
    cosine = gram[0][1] / first / second
    if abs(cosine) > _STRAIGHT:
        return 1.0 - t, t
    angle = math.acos(cosine)
    return math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def _program(inputs: Inputs) -> Program:
    present = (() if inputs.base is None else (inputs.base,)) + inputs.models
    if len(present) == 1:
        return Copy(present[0])
    t = inputs.number("t")
    if t in (0.0, 1.0):
        return Copy(present[int(t)])
    gram = yield Gram(present)
    return weighted_sum(present, arc_coefficients(gram, t))


METHOD = Method(
    name="slerp",
    title="Spherical linear interpolation",
    formula="Y = (sin((1-t)a) B + sin(ta) X) / sin(a), a = angle(B, X) over the whole tensor",
    reference="Shoemake 1985, Animating rotation with quaternion curves",
    base=BaseRule.REQUIRED,
    program=_program,
    parameters=(Parameter("t", float, "0 is the base model, 1 the other one"),),
    minimum=1,
    maximum=1,
    instead="merge two of them first and the result with the next one, or take karcher or multislerp",
)
