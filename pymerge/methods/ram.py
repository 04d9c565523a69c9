"""Add what only one model changed, average what several did."""

from __future__ import annotations

from pymerge.methods._overlap import EPSILON, average_changes, change_rules
from pymerge.methods.base import BaseRule, Inputs, Method
from pymerge.ops import Program


def _program(inputs: Inputs) -> Program:
    yield from ()
    return average_changes(inputs, change_rules(inputs))


METHOD = Method(
    name="ram",
    title="Reinforced agent merging",
    formula="Y = B + sum_i a_i D_i / c, a_i = |D_i| > epsilon, c = sum_i a_i",
    reference="Reinforced agent merging (RAM): means over the agents that changed a parameter",
    base=BaseRule.REQUIRED,
    program=_program,
    parameters=(EPSILON,),
    minimum=0,
)
