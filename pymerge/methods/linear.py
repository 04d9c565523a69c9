"""Weighted average of models."""

from __future__ import annotations

from pymerge.methods._weighted import normalized, weighted_sum
from pymerge.methods.base import BaseRule, Inputs, Method, Parameter
from pymerge.ops import Program


def _program(inputs: Inputs) -> Program:
    weights = inputs.numbers("weight")
    if inputs.flag("normalize"):
        weights = normalized(weights, "linear", inputs.name, "normalize")
    return weighted_sum(inputs.models, weights)
    yield  # a program is a generator; this one measures nothing


METHOD = Method(
    name="linear",
    title="Weighted average",
    formula="Y = sum_i w_i X_i / sum_i w_i",
    reference="Wortsman et al. 2022, Model soups (arXiv:2203.05482)",
    base=BaseRule.INPUT,
    program=_program,
    parameters=(
        Parameter("weight", float, "share of this model", per_model=True),
        Parameter("normalize", bool, "divide by the sum of the weights", default=True),
    ),
)
