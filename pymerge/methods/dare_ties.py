"""Drop elements of task vectors at random, rescale, then elect signs."""

from __future__ import annotations

from pymerge.methods._task_vectors import family_parameters, merge_task_vectors, random_rules
from pymerge.methods.base import BaseRule, Inputs, Method
from pymerge.ops import Program


def _program(inputs: Inputs) -> Program:
    return merge_task_vectors(inputs, random_rules(inputs), elect=True)


METHOD = Method(
    name="dare_ties",
    title="DARE with TIES",
    formula="Y = B + lambda sum_i w_i r_i m_i [sign agrees] D_i; m_i ~ Bernoulli(density)",
    reference="Yu et al. 2023 (arXiv:2311.03099) with the election of Yadav et al. 2023 (arXiv:2306.01708)",
    base=BaseRule.REQUIRED,
    program=_program,
    parameters=family_parameters(
        normalize=False, rescale=True, density="probability that an element is kept", elect=True
    ),
    minimum=0,
)
