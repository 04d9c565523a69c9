"""At each element, the task vector that moved it the furthest."""

from __future__ import annotations

from pymerge.methods._pick import PARAMETERS, pick_largest
from pymerge.methods.base import BaseRule, Inputs, Method
from pymerge.ops import Program


def _program(inputs: Inputs) -> Program:
    return pick_largest(inputs, "overlap")
    yield  # a program is a generator; this one measures nothing


METHOD = Method(
    name="magmax",
    title="MagMax: of all task vectors the element of the largest magnitude",
    formula="Y = B + lambda w_j D_j, j = argmax_i |w_i D_i| at each element",
    reference="Marczak et al. 2024, MagMax (arXiv:2407.06322)",
    base=BaseRule.REQUIRED,
    program=_program,
    parameters=PARAMETERS,
    minimum=0,
)
