"""At each element, the largest task vector of the sign that all of them together have."""

from __future__ import annotations

from pymerge.methods._pick import PARAMETERS, pick_largest
from pymerge.methods.base import BaseRule, Inputs, Method
from pymerge.ops import Program


def _program(inputs: Inputs) -> Program:
    return pick_largest(inputs, "sum")
    yield  # a program is a generator; this one measures nothing


METHOD = Method(
    name="emr",
    title="The elected model of EMR-Merging: the largest element of the winning sign",
    formula="Y = B + lambda w_j D_j, j = argmax |w_i D_i| over those of the sign of sum(w_i D_i), at each element",
    reference="Huang et al. 2024, EMR-Merging (arXiv:2405.17461), without the masks and rescalers of single tasks",
    base=BaseRule.REQUIRED,
    program=_program,
    parameters=PARAMETERS,
    minimum=0,
)
