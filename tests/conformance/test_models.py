"""More models than usual, and models of several dtypes: the specification's bits."""

from __future__ import annotations

from array import array
from typing import Any

import kernel_cases as cases
import numpy as np
import pytest
from conformance.test_bits import combine_both

from pymerge.backends.protocol import Ops
from pymerge.backends.reference import ReferenceOps
from pymerge.dtypes import BY_NAME
from pymerge.ops import Gram, Lines, WeightedSum

LENGTH = 2 * cases.BLOCK + 24
LINES = Lines(4, LENGTH // 4)
#: Around the numbers of models that kernels are compiled for, and that travel with a launch.
MODELS = (1, 3, 4, 5, 9, 16, 17, 40)


def check(ops: Ops, operands: list[Any], models: int, compute: str, dtype: str) -> None:
    sources = tuple(range(1, models + 1))
    weights = array("d", np.random.default_rng(models).standard_normal(models * LINES.count).tolist())
    for request in (WeightedSum(sources, weights[:models]), WeightedSum(sources, weights, 0, LINES)):
        combine_both(ops, request, operands, dtype, LENGTH, ("bfloat16", "float32"))
    if models <= 9:
        for measure in (Gram(sources), Gram(sources, 0), Gram(sources, None, LINES)):
            answers = [each.measure(measure, operands, BY_NAME[compute]) for each in (ops, ReferenceOps())]
            assert cases.same_answer(*answers), measure


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
@pytest.mark.parametrize("models", MODELS)
def test_any_number_of_models(ops: Ops, models: int, dtype: str) -> None:
    check(ops, cases.make(dtype, LENGTH, models), models, "float64" if dtype == "float64" else "float32", dtype)


@pytest.mark.parametrize("kinds", [("bfloat16", "float16"), ("float32", "bfloat16"), cases.DTYPES])
@pytest.mark.parametrize("models", [1, 2, 3, 6])
def test_models_of_several_dtypes(ops: Ops, models: int, kinds: tuple[str, ...]) -> None:
    made = [cases.make(kinds[i % len(kinds)], LENGTH, models)[i] for i in range(models + 1)]
    wide = any(operand.dtype == np.float64 for operand in made)
    check(ops, made, models, "float64" if wide else "float32", "float64" if wide else "float32")
