"""What methods share that pick one task vector's value at each element instead of adding."""

from __future__ import annotations

from pymerge.methods.base import Inputs, Parameter
from pymerge.ops import KEEP_ALL, Combine, Copy, TaskMerge

__all__ = ["PARAMETERS", "pick_largest"]

PARAMETERS = (
    Parameter("weight", float, "factor on this model's task vector, before they are compared", 1.0, per_model=True),
    Parameter("lambda", float, "factor on the merged task vector", default=1.0),
)


def pick_largest(inputs: Inputs, consensus: str) -> Combine:
    """The base plus, at each element, the largest weighted task vector among those that take part."""
    assert inputs.base is not None
    weights = inputs.numbers("weight")
    used = [i for i, weight in enumerate(weights) if weight]
    if not used:
        return Copy(inputs.base)
    return TaskMerge(
        inputs.base,
        tuple(inputs.models[i] for i in used),
        (KEEP_ALL,) * len(used),
        tuple(weights[i] for i in used),
        consensus,
        scale=inputs.number("lambda"),
        pick=True,
    )
