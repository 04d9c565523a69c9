"""Take over what lies near the base, move the rest a step towards the other model."""

from __future__ import annotations

from pymerge.methods.base import BaseRule, Inputs, Method, Parameter
from pymerge.ops import Copy, NearSwap, Program


def _program(inputs: Inputs) -> Program:
    if inputs.base is None or not inputs.models:
        return Copy(inputs.models[0] if inputs.base is None else inputs.base)
    t = inputs.number("t")
    if t == 0:
        return Copy(inputs.base)
    return NearSwap(inputs.base, inputs.models, t)
    yield  # a program is a generator; this one measures nothing


METHOD = Method(
    name="nearswap",
    title="Near swap",
    formula="Y = q X + (1 - q) B, q = min(t / max(|X - B|, 1e-6), 1), element by element",
    reference="alchemonaut 2024, QuartetAnemoi-70B-t0.0001 (model card)",
    base=BaseRule.REQUIRED,
    program=_program,
    parameters=(
        Parameter("t", float, "how far elements move; those nearer than that become the other model's", minimum=0.0),
    ),
    minimum=1,
    maximum=1,
)
