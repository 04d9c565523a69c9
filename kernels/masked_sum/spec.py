"""masked_sum: norms of task vectors before and after their masks.

    total_i = sum_e |D_i[e]|,   kept_i = sum_e m_i[e] |D_i[e]|,   count_i = sum_e m_i[e]
    norm "l2": of the squares instead;   norm "linf": the maxima instead (NaN is the largest)

In: n tensors [N] of any mergeable dtype, a mask rule each (mask's spec), optionally a base (else
D_i = X_i). Out per tensor: (total, kept, count). Passes over the inputs: 1. Magnitudes in the
compute type, squares and lanes in float64, canonical order (common/canonical.py); counts are integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..common.canonical import tile_sums
from ..common.convert import Array, decode_delta
from ..common.exact import exact_sum
from ..mask import spec as mask

PASSES = 1

#: Relative: float64 lanes; 1e-12 is 4,500 roundings.
TOLERANCE = 1e-12


def _reduce(terms: Array, norm: str) -> float:
    if norm == "linf":
        return float(terms.max(initial=0.0))
    return exact_sum(tile_sums(terms))


def run(
    tensors: Sequence[Array], base: Array | None, rules: Sequence[tuple[Any, ...]], norm: str, compute: str
) -> tuple[tuple[float, float, int], ...]:
    """The contract, bit for bit."""
    totals = []
    deltas = [decode_delta(tensor, base, compute) for tensor in tensors]
    for delta, kept in zip(deltas, mask.run_each(rules, tensors, deltas, compute), strict=True):
        with np.errstate(over="ignore", invalid="ignore"):
            magnitudes = np.abs(delta).astype(np.float64)
            if norm == "l2":
                magnitudes = magnitudes * magnitudes
            whole, part = (_reduce(terms, norm) for terms in (magnitudes, np.where(kept, magnitudes, 0.0)))
            totals.append((whole, part, int(kept.sum())))
    return tuple(totals)
