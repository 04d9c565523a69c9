"""Add what only one model changed, average what several did."""

from __future__ import annotations

from pymerge.methods._overlap import EPSILON, average_changes, change_rules
from pymerge.methods.base import BaseRule, Inputs, Method
from pymerge.ops import Program


def _program(inputs: Inputs) -> Program:
    return average_changes(inputs, change_rules(inputs))
    yield  # a program is a generator; this one measures nothing


METHOD = Method(
    name="ram",
    title="Reinforced agent merging",
    formula="Y = B + sum_i a_i D_i / c, a_i = |D_i| > epsilon, c = sum_i a_i",
    reference="Behavior Knowledge Merge in Reinforced Agentic Models (2026), which names it RAM",
    base=BaseRule.REQUIRED,
    program=_program,
    parameters=(EPSILON,),
    minimum=0,
)
