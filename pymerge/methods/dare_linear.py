"""Drop elements of task vectors at random, rescale the rest, add."""

from __future__ import annotations

from pymerge.methods._task_vectors import family_parameters, merge_task_vectors, random_rules
from pymerge.methods.base import BaseRule, Inputs, Method
from pymerge.ops import Program


def _program(inputs: Inputs) -> Program:
    return merge_task_vectors(inputs, random_rules(inputs), elect=False)


METHOD = Method(
    name="dare_linear",
    title="DARE with task arithmetic",
    formula="Y = B + lambda sum_i w_i r_i m_i D_i; m_i ~ Bernoulli(density)",
    reference="Yu et al. 2023, Language models are super Mario (arXiv:2311.03099)",
    base=BaseRule.REQUIRED,
    program=_program,
    parameters=family_parameters(normalize=False, rescale=True, density="probability that an element is kept"),
    minimum=0,
)
