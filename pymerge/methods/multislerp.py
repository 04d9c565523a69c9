"""Weighted mean of directions, at the weighted mean of lengths."""

from __future__ import annotations

import math

from pymerge.errors import RecipeError
from pymerge.methods._weighted import normalized, norms_of, span_sum
from pymerge.methods.base import BaseRule, Inputs, Method, Parameter
from pymerge.ops import Copy, Gram, Program


def _program(inputs: Inputs) -> Program:
    if len(inputs.models) < 2:
        present = (*inputs.models, *(() if inputs.base is None else (inputs.base,)))
        return Copy(present[0])
    weights, eps = inputs.numbers("weight"), inputs.number("eps")
    if inputs.flag("normalize_weights"):
        weights = normalized(weights, "multislerp", inputs.name, "normalize_weights")
    gram = yield Gram(inputs.models, inputs.base)
    norms = norms_of(gram)
    # The mean of the unit vectors in coordinates: m = sum_i mean[i] X_i.
    mean = [weight / (norm + eps) if norm + eps > 0 else 0.0 for weight, norm in zip(weights, norms, strict=True)]
    size = range(len(mean))
    length = math.sqrt(max(0.0, math.fsum(mean[i] * mean[j] * gram[i][j] for i in size for j in size)))
    if length < eps or length == 0:
        # Vectors of length 0 (a bias that nobody trained) have no direction, and need none.
        if len(mean) > 2 and any(norms):
            raise RecipeError(
                f"multislerp: the directions of {inputs.name} cancel out, so they have no mean; "
                "change a weight, or merge two models at a time"
            )
        return span_sum(inputs.base, inputs.models, weights)
    # The published tangent step from m / |m| is 0: sum_i w_i u_i is m itself. What is left of it is
    # the length eps that it is given against a division by 0.
    reach = math.fsum(w * norm for w, norm in zip(weights, norms, strict=True)) * math.cos(eps) / length
    return span_sum(inputs.base, inputs.models, tuple(reach * value for value in mean))


METHOD = Method(
    name="multislerp",
    title="Spherical mean of many models",
    formula="Y = B + (sum_i w_i |D_i|) m / |m|, m = sum_i w_i D_i / |D_i|; without a base D_i = X_i and B = 0",
    reference="Buss and Fillmore 2001, Spherical averages (doi:10.1145/502122.502124), its first step",
    base=BaseRule.OPTIONAL,
    program=_program,
    parameters=(
        Parameter("weight", float, "share of this model", per_model=True),
        Parameter("normalize_weights", bool, "divide by the sum of the weights", default=True),
        Parameter("eps", float, "length below which a mean has no direction", default=1e-8, minimum=0.0),
    ),
)
