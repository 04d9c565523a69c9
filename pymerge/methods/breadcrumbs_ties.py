"""Drop the largest and the smallest elements of task vectors, elect signs, merge what agrees."""

from __future__ import annotations

from pymerge.methods._task_vectors import GAMMA, band_rules, family_parameters, merge_task_vectors
from pymerge.methods.base import BaseRule, Inputs, Method
from pymerge.ops import Program


def _program(inputs: Inputs) -> Program:
    rules = yield from band_rules(inputs)
    return (yield from merge_task_vectors(inputs, rules, elect=True))


METHOD = Method(
    name="breadcrumbs_ties",
    title="Model breadcrumbs with sign election",
    formula="Y = B + lambda sum_i w_i m_i D_i over those of the elected sign; m_i as in breadcrumbs",
    reference="Davari and Belilovsky 2023, Model breadcrumbs (arXiv:2312.06795), with the election of arXiv:2306.01708",
    base=BaseRule.REQUIRED,
    program=_program,
    parameters=(
        *family_parameters(normalize=False, rescale=False, density="share of elements kept", elect=True, trim=True),
        GAMMA,
    ),
    minimum=0,
)
