"""Norms of task vectors, where their magnitudes are as small or large as there are."""

from __future__ import annotations

import kernel_cases as cases
import numpy as np
import pytest

from pymerge.backends.protocol import Ops
from pymerge.backends.reference import ReferenceOps
from pymerge.dtypes import BY_NAME
from pymerge.ops import KEEP_ALL, Bernoulli, MaskedSum, MaskRule, RankBernoulli

REFERENCE = ReferenceOps()


@pytest.mark.parametrize("rule", [Bernoulli(40_000, 11), RankBernoulli(0.6, 0.3, 11, 1024), KEEP_ALL], ids=repr)
@pytest.mark.parametrize(
    ("magnitudes", "rare"),
    [
        ((1e-45, 1e-38), ()),
        ((1e-45, 1e38), ()),
        ((1e37, 3.4e38), ()),
        ((1e-3, 1.0), (np.inf,)),
        ((1e-3, 1.0), (np.nan,)),
    ],
    ids=["denormals", "all", "huge", "infinite", "nan"],
)
def test_norms_of_any_magnitude(
    ops: Ops, magnitudes: tuple[float, float], rare: tuple[float, ...], rule: MaskRule
) -> None:
    """Sums of L1 scale magnitudes, where they are finite and do not add up to what looks as if one were not."""
    random = np.random.default_rng(5)
    values = np.exp(random.uniform(*np.log(np.float64(magnitudes)), 4096)) * random.choice([-1, 1], 4096)
    values[1024 + 77 : 1024 + 77 + len(rare)] = rare
    operands = [np.zeros(4096, np.float32), values.astype(np.float32)]
    request = MaskedSum((1,), (rule,), 0, "l1")
    answers = [each.measure(request, operands, BY_NAME["float32"]) for each in (ops, REFERENCE)]
    assert cases.same_answer(*answers)
