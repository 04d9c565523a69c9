"""Drop the largest and the smallest elements of task vectors, add the middle."""

from __future__ import annotations

from pymerge.methods._task_vectors import family_parameters, merge_task_vectors
from pymerge.methods.base import BaseRule, Inputs, Method, Parameter
from pymerge.ops import KEEP_ALL, KEEP_NONE, Band, MaskRule, Program, Select


def _band(density: float, gamma: float, count: int) -> tuple[int, int]:
    """(outer, inner): how many of the largest bound the kept band from below and above."""
    keep = int(density * count)
    bottom = max(0, count - keep - int(gamma * count))
    return count - bottom, count - bottom - keep


def _program(inputs: Inputs) -> Program:
    densities, gammas = inputs.numbers("density"), inputs.numbers("gamma")
    rules: list[MaskRule] = [KEEP_ALL if density >= 1 else KEEP_NONE for density in densities]
    banded = [i for i, density in enumerate(densities) if 0 < density < 1]
    if banded:
        pairs = [(inputs.models[i], n) for i in banded for n in _band(densities[i], gammas[i], inputs.count)]
        cuts = yield Select(tuple(s for s, _ in pairs), tuple(n for _, n in pairs), inputs.base)
        for at, i in enumerate(banded):
            outer, inner = cuts[2 * at : 2 * at + 2]
            rules[i] = Band(outer, inner)
    return (yield from merge_task_vectors(inputs, rules, elect=False))


METHOD = Method(
    name="breadcrumbs",
    title="Model breadcrumbs",
    formula="Y = B + lambda sum_i w_i m_i D_i; m_i drops the top gamma and keeps the next density by magnitude",
    reference="Davari and Belilovsky 2023, Model breadcrumbs (arXiv:2312.06795)",
    base=BaseRule.REQUIRED,
    program=_program,
    parameters=(
        *family_parameters(normalize=False, rescale=False, density="share of elements kept"),
        Parameter(
            "gamma",
            float,
            "share of the largest magnitudes that is dropped",
            default=0.01,
            per_model=True,
            minimum=0.0,
            maximum=1.0,
        ),
    ),
    minimum=0,
)
