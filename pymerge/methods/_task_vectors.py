"""What the task-arithmetic family shares: it differs only in mask rule and sign election.

Order of operations (the peer's, which is TIES' with DARE's rescaling): task vector, mask, rescale,
weight, elect, sum, divide, lambda.
"""

from __future__ import annotations

from collections.abc import Sequence

from pymerge.errors import RecipeError
from pymerge.methods.base import Inputs, Parameter, Value
from pymerge.ops import (
    KEEP_ALL,
    KEEP_NONE,
    Band,
    Bernoulli,
    Copy,
    KeepAll,
    MaskedSum,
    MaskRule,
    Program,
    RankBernoulli,
    Select,
    Steps,
    TaskMerge,
    TopK,
)

__all__ = [
    "EPSILON",
    "GAMMA",
    "band_rules",
    "family_parameters",
    "merge_task_vectors",
    "random_rules",
    "ranked_rules",
    "top_rules",
]

#: Weights that sum to less than this are not divided by.
_NO_DIVISOR = 1e-8

#: How to undo a mask's effect on a norm: the root of the ratio of what masked_sum adds up.
_NORMS: dict[Value, int] = {"l1": 1, "l2": 2, "linf": 1}

_ELECTION = (
    Parameter(
        "consensus",
        str,
        "the sign that wins at an element: that of the sum of all votes, or the one that more of them have",
        default="sum",
        choices=("sum", "count"),
    ),
    Parameter(
        "election",
        str,
        "votes are task vectors times their weights, or unweighted",
        default="weighted",
        choices=("weighted", "unweighted"),
    ),
)

#: What is ordered by magnitude together.
_TRIM_SCOPE = Parameter(
    "trim_scope",
    str,
    "densities are of each tensor, of each layer's tensors together, or of the whole model",
    default="tensor",
    choices=("tensor", "layer", "global"),
)

#: DELLA's second parameter.
EPSILON = Parameter(
    "epsilon",
    float,
    "how far the probability goes below density for a row's least magnitude, and above it for the largest",
    default=0.15,
    per_model=True,
    minimum=0.0,
)

#: Breadcrumbs' second parameter.
GAMMA = Parameter(
    "gamma",
    float,
    "share of the largest magnitudes that is dropped",
    default=0.01,
    per_model=True,
    minimum=0.0,
    maximum=1.0,
)


def family_parameters(
    *, normalize: bool, rescale: bool, density: str, elect: bool = False, trim: bool = False
) -> tuple[Parameter, ...]:
    """The family's parameters with one method's defaults; `density` is the doc of that parameter."""
    return (
        Parameter("weight", float, "factor on this model's task vector", per_model=True),
        Parameter("density", float, density, default=1.0, per_model=True, minimum=0.0, maximum=1.0),
        Parameter("normalize", bool, "divide by the sum of the weights that took part", default=normalize),
        Parameter(
            "rescale",
            str,
            "make up for what the mask dropped: keep the norm l1 (true), l2 or linf; inverse multiplies by 1/density",
            default=rescale,
            choices=(True, False, *_NORMS, "inverse"),
        ),
        Parameter("lambda", float, "factor on the merged task vector", default=1.0),
        Parameter("int8_mask", bool, "accepted for old recipes; changes nothing", default=False),
        *(_ELECTION if elect else ()),
        *((_TRIM_SCOPE,) if trim else ()),
    )


def top_count(density: float, count: int) -> int:
    """How many of `count` elements a density keeps: int(density * count), at least one."""
    return min(count, max(1, int(density * count))) if density > 0 else 0


def _votes_unweighted(inputs: Inputs) -> bool:
    """Whether there is an election in which weights do not count."""
    return inputs.values.get("election") == "unweighted"


def _useful_densities(inputs: Inputs) -> tuple[float, ...]:
    """Densities, but 0 where the weight is: what counts for nothing need not be measured."""
    if _votes_unweighted(inputs):
        return inputs.numbers("density")
    pairs = zip(inputs.numbers("density"), inputs.numbers("weight"), strict=True)
    return tuple(density if weight else 0.0 for density, weight in pairs)


def _group(inputs: Inputs) -> str:
    """The group in which cuts are sought; a tensor outside of all layers is its own layer."""
    scope = inputs.values["trim_scope"]
    return "all" if scope == "global" else inputs.layer if scope == "layer" else ""


def random_rules(inputs: Inputs) -> tuple[MaskRule, ...]:
    """DARE's rule per model: each element is kept with probability density."""
    rules: list[MaskRule] = []
    for index, density in enumerate(_useful_densities(inputs)):
        if density <= 0 or density >= 1:
            rules.append(KEEP_ALL if density >= 1 else KEEP_NONE)
        else:
            rules.append(Bernoulli(max(1, round(density * 65536)), inputs.stream(index)))
    return tuple(rules)


def ranked_rules(inputs: Inputs, method: str) -> tuple[MaskRule, ...]:
    """DELLA's rule per model: probabilities grow with the rank of a magnitude in its row.

    Raises:
        RecipeError: density and epsilon ask for probabilities outside of (0, 1).
    """
    rules: list[MaskRule] = []
    for index, (density, epsilon) in enumerate(zip(_useful_densities(inputs), inputs.numbers("epsilon"), strict=True)):
        if density <= 0 or density >= 1:
            rules.append(KEEP_ALL if density >= 1 else KEEP_NONE)
            continue
        if density - epsilon <= 0 or density + epsilon >= 1:
            raise RecipeError(
                f"{method}: density = {density:g} and epsilon = {epsilon:g} of model {inputs.places[index] + 1} "
                f"ask for probabilities from {density - epsilon:g} to {density + epsilon:g}, not between 0 and 1; "
                f"set epsilon below {min(density, 1 - density):g}"
            )
        row = inputs.shape[-1] if inputs.shape else 1
        rules.append(RankBernoulli(density, epsilon, inputs.stream(index), max(1, row)))
    return tuple(rules)


def top_rules(inputs: Inputs) -> Steps[tuple[MaskRule, ...]]:
    """TIES' rule per model: the largest magnitudes are kept; one select measures all models."""
    densities = _useful_densities(inputs)
    rules: list[MaskRule] = [KEEP_ALL if density >= 1 else KEEP_NONE for density in densities]
    trimmed = [i for i, density in enumerate(densities) if 0 < density < 1 and inputs.count]
    if trimmed:
        counts = tuple(top_count(densities[i], inputs.count) for i in trimmed)
        sources = tuple(inputs.models[i] for i in trimmed)
        cuts = yield Select(sources, counts, inputs.base, group=_group(inputs))
        for i, cut in zip(trimmed, cuts, strict=True):
            rules[i] = TopK(cut)
    return tuple(rules)


def _band(density: float, gamma: float, count: int) -> tuple[int, int]:
    """(outer, inner): how many of the largest bound the kept band from below and above."""
    keep = int(density * count)
    bottom = max(0, count - keep - int(gamma * count))
    return count - bottom, count - bottom - keep


def band_rules(inputs: Inputs) -> Steps[tuple[MaskRule, ...]]:
    """Breadcrumbs' rule per model: the largest are dropped, the next ones kept."""
    densities, gammas = _useful_densities(inputs), inputs.numbers("gamma")
    rules: list[MaskRule] = [KEEP_ALL if density >= 1 else KEEP_NONE for density in densities]
    banded = [i for i, density in enumerate(densities) if 0 < density < 1]
    if banded:
        pairs = [(inputs.models[i], n) for i in banded for n in _band(densities[i], gammas[i], inputs.count)]
        sources, counts = tuple(s for s, _ in pairs), tuple(n for _, n in pairs)
        cuts = yield Select(sources, counts, inputs.base, group=_group(inputs))
        for at, i in enumerate(banded):
            rules[i] = Band(*cuts[2 * at : 2 * at + 2])
    return tuple(rules)


def merge_task_vectors(inputs: Inputs, rules: Sequence[MaskRule], *, elect: bool) -> Program:
    """The rest of a family program, once the rules are decided: rescale, weight, combine."""
    assert inputs.base is not None
    if not inputs.models:
        return Copy(inputs.base)
    weights = inputs.numbers("weight")
    factors = yield from _rescale_factors(inputs, rules)
    scaled = tuple(weight * factor for weight, factor in zip(weights, factors, strict=True))
    normalize, scale = inputs.flag("normalize"), inputs.number("lambda")
    total = sum(weights) if normalize and not elect else 1.0
    divisor = total if abs(total) >= _NO_DIVISOR else 1.0
    coefficients = scaled if elect else tuple(value * scale / divisor for value in scaled)
    unweighted = _votes_unweighted(inputs)
    votes = factors if unweighted else coefficients
    # What adds nothing is not read; where nothing is added the base's bytes are the result.
    used = [i for i in range(len(rules)) if (coefficients[i] or votes[i]) and rules[i] != KEEP_NONE]
    if not any(coefficients[i] for i in used):
        return Copy(inputs.base)
    chosen = (
        tuple(inputs.models[i] for i in used),
        tuple(rules[i] for i in used),
        tuple(coefficients[i] for i in used),
    )
    if elect:
        return TaskMerge(
            inputs.base,
            *chosen,
            str(inputs.values["consensus"]),
            tuple(weights[i] for i in used),
            normalize,
            scale,
            tuple(votes[i] for i in used) if unweighted else (),
        )
    return TaskMerge(inputs.base, *chosen)


def _rescale_factors(inputs: Inputs, rules: Sequence[MaskRule]) -> Steps[tuple[float, ...]]:
    factors = [1.0] * len(rules)
    how = inputs.values["rescale"]
    dropping = [i for i, rule in enumerate(rules) if not isinstance(rule, KeepAll) and rule != KEEP_NONE]
    if how == "inverse":
        densities = inputs.numbers("density")
        for i in dropping:
            factors[i] = 1.0 / densities[i]
    elif how and dropping:
        norm = "l1" if how is True else str(how)
        sources = tuple(inputs.models[i] for i in dropping)
        totals = yield MaskedSum(sources, tuple(rules[i] for i in dropping), inputs.base, norm)
        for i, total in zip(dropping, totals, strict=True):
            factors[i] = (total.total / total.kept) ** (1 / _NORMS[norm]) if total.kept > 0 else 1.0
    return tuple(factors)
