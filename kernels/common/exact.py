"""The sum that no order of its terms can change; apart from canonical.py, so that it needs no numpy."""

from __future__ import annotations

import math
from collections.abc import Iterable

__all__ = ["exact_sum"]


def exact_sum(values: Iterable[float]) -> float:
    """Sum rounded once, so the order of `values` does not matter; not finite if a value is not."""
    listed = list(values)
    if all(map(math.isfinite, listed)):
        return math.fsum(listed)
    return sum(listed)
