"""Trim task vectors, elect signs, merge what agrees."""

from __future__ import annotations

from pymerge.methods._task_vectors import family_parameters, merge_task_vectors, top_rules
from pymerge.methods.base import BaseRule, Inputs, Method
from pymerge.ops import Program


def _program(inputs: Inputs) -> Program:
    rules = yield from top_rules(inputs)
    return (yield from merge_task_vectors(inputs, rules, elect=True))


METHOD = Method(
    name="ties",
    title="TIES",
    formula="Y = B + lambda sum_i w_i a_i D_i / sum_i w_i a_i; a_i: D_i is in its top density and its sign won",
    reference="Yadav et al. 2023, TIES-Merging (arXiv:2306.01708), section 3",
    base=BaseRule.REQUIRED,
    program=_program,
    parameters=family_parameters(
        normalize=True,
        rescale=False,
        density="share of elements kept, the largest magnitudes first",
        elect=True,
        trim=True,
    ),
    minimum=0,
)
