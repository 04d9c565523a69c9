"""Task vectors of any number of models, under rules of all kinds at once: the specification's bits."""

from __future__ import annotations

from typing import Any

import kernel_cases as cases
import numpy as np
import pytest
from conformance.test_bits import combine_both

from pymerge.backends.protocol import Ops
from pymerge.backends.reference import ReferenceOps
from pymerge.dtypes import BY_NAME
from pymerge.ops import (
    KEEP_ALL,
    Band,
    Bernoulli,
    Cut,
    MaskedSum,
    MaskRule,
    Overlap,
    RankBernoulli,
    Spread,
    TaskMerge,
    TopK,
)

LENGTH = 3 * cases.BLOCK + 24
#: Around the numbers of models that kernels are compiled for, that factors are tabled for, that travel with a launch.
MODELS = (1, 3) if cases.INTERPRETED else (1, 3, 4, 5, 7, 22, 45)


def rules_of(operands: list[Any], models: int, compute: str, kinds: str) -> tuple[MaskRule, ...]:
    wide = np.dtype(compute)
    bits = wide.str.replace("f", "u")
    magnitudes = np.abs(operands[1].astype(wide) - operands[0].astype(wide))
    middle, upper = (int(np.quantile(magnitudes, share, method="nearest").view(bits)) for share in (0.5, 0.9))
    # Last ties at a vector's first and last element, within one, and where there are none.
    made: dict[str, tuple[MaskRule, ...]] = {
        "a": (KEEP_ALL,),
        "t": (TopK(Cut(middle, 1031)), TopK(Cut(0, 1024)), TopK(Cut((1 << 64) - 1, 5))),
        "b": (Band(Cut(middle, 1500), Cut(upper, 77)),),
        "d": (Bernoulli(40000, 5), Bernoulli(0, 6), Bernoulli(1 << 16, 7), Bernoulli(1, 8)),
        "r": (RankBernoulli(0.5, 0.2, 9, 300),),
        "s": (Spread(Cut(upper, LENGTH)),),
    }
    chosen = [made[kinds[i % len(kinds)]] for i in range(models)]
    return tuple(rules[i % len(rules)] for i, rules in enumerate(chosen))


@pytest.mark.parametrize("kinds", ["t", "d", "drbsat"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
@pytest.mark.parametrize("models", MODELS)
def test_any_number_of_task_vectors(ops: Ops, models: int, dtype: str, kinds: str) -> None:
    operands = cases.make(dtype, LENGTH, models)
    compute = "float64" if dtype == "float64" else "float32"
    rules = rules_of(operands, models, compute, kinds)
    sources = tuple(range(1, models + 1))
    weights = tuple(0.3 + 0.1 * i for i in sources)
    votes = tuple((-1.0) ** i for i in sources)
    for request in (
        TaskMerge(0, sources, rules, weights),
        TaskMerge(0, sources, rules, weights, "sum", weights, True, 0.9),
        TaskMerge(0, sources, rules, weights, "sum", weights, True, 0.9, votes, weights),
        TaskMerge(0, sources, rules, weights, "sum", scale=0.9),
        TaskMerge(0, sources, rules, weights, "count", scale=-0.5),
        TaskMerge(0, sources, rules, weights, "overlap", weights, True, 0.9, alone=votes),
        TaskMerge(0, sources, rules, weights, "sum", scale=1.5, pick=True),
    ):
        combine_both(ops, request, operands, dtype, LENGTH, ("bfloat16", "float32"))
    for measure in (
        Overlap(sources, rules, 0),
        MaskedSum(sources, rules, 0, "l1"),
        MaskedSum(sources, rules, None, "linf"),
    ):
        answers = [each.measure(measure, operands, BY_NAME[compute]) for each in (ops, ReferenceOps())]
        assert cases.same_answer(*answers), measure
