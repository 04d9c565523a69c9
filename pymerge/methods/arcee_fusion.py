"""Take over the changes that matter most, judged by size and by how far their row has moved."""

from __future__ import annotations

from pymerge.methods._lines import cut_lines
from pymerge.methods.base import BaseRule, Inputs, Method
from pymerge.ops import Copy, Fusion, Lines, Program, RowDivergence, Select

#: Changes whose score is at least median + this times the interquartile range are taken over (a Tukey fence).
_REACH = 1.5
_QUARTILES = (0.25, 0.5, 0.75)


def _program(inputs: Inputs) -> Program:
    if inputs.base is None or not inputs.models:
        return Copy(inputs.models[0] if inputs.base is None else inputs.base)
    if inputs.count == 0 or (inputs.shape[-1] if inputs.shape else 1) == 1:
        # A row of one element is the same distribution in both: every score is 0, as is the threshold.
        return Copy(inputs.models[0])
    lines = cut_lines(inputs, "arcee_fusion", "leave it as the base has it with exclude") or Lines(1, inputs.count)
    factors = yield RowDivergence(inputs.models, inputs.base, lines)
    # The quantile q is at index int(q (n - 1)) of the ascending scores: "lower" in numpy's terms, not interpolated.
    counts = tuple(inputs.count - int(q * (inputs.count - 1)) for q in _QUARTILES)
    cuts = yield Select(inputs.models * len(counts), counts, inputs.base, factors=factors, lines=lines)
    low, median, high = (cut.magnitude(wide=inputs.wide) for cut in cuts)
    return Fusion(inputs.base, inputs.models, factors, lines, median + _REACH * (high - low))


METHOD = Method(
    name="arcee_fusion",
    title="Arcee Fusion",
    formula="Y = B + [s >= median(s) + 1.5 (Q3(s) - Q1(s))] D; s = |D| KL(softmax(X row) || softmax(B row))",
    reference="Arcee AI 2025, Meet MergeKit v0.1: Arcee Fusion (blog); mergekit, docs/merge_methods.md",
    base=BaseRule.REQUIRED,
    program=_program,
    minimum=1,
    maximum=1,
)
