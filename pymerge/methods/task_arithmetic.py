"""Add weighted task vectors to a base model."""

from __future__ import annotations

from pymerge.methods._task_vectors import family_parameters, merge_task_vectors
from pymerge.methods.base import BaseRule, Inputs, Method
from pymerge.ops import KEEP_ALL, Program


def _program(inputs: Inputs) -> Program:
    return merge_task_vectors(inputs, (KEEP_ALL,) * len(inputs.models), elect=False)


METHOD = Method(
    name="task_arithmetic",
    title="Task arithmetic",
    formula="Y = B + lambda sum_i w_i D_i",
    reference="Ilharco et al. 2023, Editing models with task arithmetic (arXiv:2212.04089)",
    base=BaseRule.REQUIRED,
    program=_program,
    parameters=family_parameters(
        normalize=False, rescale=False, density="accepted for old recipes; nothing is dropped"
    ),
    minimum=0,
)
