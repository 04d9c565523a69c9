"""Drop elements of task vectors at random, the smaller ones likelier, rescale the rest, add."""

from __future__ import annotations

from pymerge.methods._task_vectors import EPSILON, family_parameters, merge_task_vectors, ranked_rules
from pymerge.methods.base import BaseRule, Inputs, Method
from pymerge.ops import Program


def _program(inputs: Inputs) -> Program:
    return merge_task_vectors(inputs, ranked_rules(inputs, "della_linear"), elect=False)


METHOD = Method(
    name="della_linear",
    title="DELLA with task arithmetic",
    formula="Y = B + lambda sum_i w_i r_i m_i D_i; "
    "m_i ~ Bernoulli(density - epsilon + 2 epsilon (rank in row) / (R - 1))",
    reference="Deep, Bhardwaj and Poria 2024, DELLA-Merging (arXiv:2406.11617)",
    base=BaseRule.REQUIRED,
    program=_program,
    parameters=(
        *family_parameters(normalize=False, rescale=True, density="mean probability that an element is kept"),
        EPSILON,
    ),
    minimum=0,
)
