"""overlap: how many elements each task vector changes alone, and how many others change too.

    a_i[e] = m_i[e] is 1 and D_i[e] is not zero   (NaN is not),   c = a_1 + ... + a_n
    alone_i = #(a_i and c = 1),   shared_i = #(a_i and c > 1)

In: n tensors [N] of any mergeable dtype, a mask rule each (mask's spec), optionally a base (else
D_i = X_i). Out per tensor: (alone, shared), integers. Passes over the inputs: 1.
Source: the partition of RAM (Reinforced Agent Merging), where "shared" and "unique" regions of task
vectors are told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..common.convert import Array, decode_delta
from ..mask import spec as mask

PASSES = 1


def run(
    tensors: Sequence[Array], base: Array | None, rules: Sequence[tuple[Any, ...]], compute: str
) -> tuple[tuple[int, int], ...]:
    """The contract, bit for bit."""
    deltas = [decode_delta(tensor, base, compute) for tensor in tensors]
    masks = mask.run_each(rules, tensors, deltas, compute)
    changes = [(kept == 1) & ~(delta == 0) for kept, delta in zip(masks, deltas, strict=True)]
    together = np.sum(changes, axis=0)
    return tuple((int((mine & (together == 1)).sum()), int((mine & (together > 1)).sum())) for mine in changes)
