"""Average what several models changed, and strengthen what only one did by how much it shares."""

from __future__ import annotations

from pymerge.methods._overlap import EPSILON, average_changes, change_rules
from pymerge.methods.base import BaseRule, Inputs, Method, Parameter
from pymerge.ops import Overlap, Program


def _program(inputs: Inputs) -> Program:
    rules = change_rules(inputs)
    if not inputs.models:
        return average_changes(inputs, rules)
    counts = yield Overlap(inputs.models, rules, inputs.base)
    r, alpha, epsilon = (inputs.number(name) for name in ("r", "alpha", "epsilon"))
    # A model that changed nothing alone has nothing that could be strengthened.
    ratios = [min(alpha, shared / max(alone, epsilon)) if alone else 0.0 for alone, shared in counts]
    return average_changes(inputs, rules, tuple(1.0 + r * ratio for ratio in ratios))


METHOD = Method(
    name="ramplus_tl",
    title="Reinforced agent merging plus, per tensor",
    formula="as ram, but where c = 1 D_i is multiplied by 1 + r min(alpha, shared_i / alone_i)",
    reference="Behavior Knowledge Merge in Reinforced Agentic Models (2026), which names it RAM+",
    base=BaseRule.REQUIRED,
    program=_program,
    parameters=(
        Parameter("r", float, "how much the overlap strengthens what one model alone changed", default=0.1),
        Parameter("alpha", float, "the overlap's ratio counts up to this", default=0.2, minimum=0.0),
        EPSILON,
    ),
    minimum=0,
)
