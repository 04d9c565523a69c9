"""One model's tensors as they are, for assembling layers (frankenmerges)."""

from __future__ import annotations

from pymerge.methods._weighted import weighted_sum
from pymerge.methods.base import BaseRule, Inputs, Method, Parameter
from pymerge.ops import Copy, Program


def _program(inputs: Inputs) -> Program:
    (scale,) = inputs.per_model["scale"]
    if scale is None:
        return Copy(inputs.models[0])
    return weighted_sum(inputs.models, (float(scale),))
    yield  # a program is a generator; this one measures nothing


METHOD = Method(
    name="passthrough",
    title="Pass through",
    formula="Y = scale X",
    reference="layer assembly as in goliath-120b; depth up-scaling: Kim et al. 2023, SOLAR 10.7B (arXiv:2312.15166)",
    base=BaseRule.SELF,
    program=_program,
    parameters=(Parameter("scale", float, "factor on every element", default=None, per_model=True),),
    minimum=1,
    maximum=1,
)
