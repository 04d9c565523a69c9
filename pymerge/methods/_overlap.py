"""What the RAM methods share: which elements a task vector changes, and how changes are averaged."""

from __future__ import annotations

import struct

from pymerge.methods.base import Inputs, Parameter
from pymerge.ops import Combine, Copy, Cut, MaskRule, TaskMerge, TopK

__all__ = ["EPSILON", "average_changes", "change_rules"]

#: Bits of the largest finite float32.
_LARGEST = 0x7F7FFFFF

EPSILON = Parameter(
    "epsilon", float, "an element counts as changed if it differs by more than this", default=1e-5, minimum=0.0
)


def change_rules(inputs: Inputs) -> tuple[MaskRule, ...]:
    """Per model: kept is what differs from the base by more than epsilon."""
    return (TopK(Cut(_bits(inputs.number("epsilon"), inputs.wide), -1)),) * len(inputs.models)


def average_changes(inputs: Inputs, rules: tuple[MaskRule, ...], alone: tuple[float, ...] = ()) -> Combine:
    """The base plus, at each element, the mean of the changes there; times `alone` where there is one only."""
    assert inputs.base is not None
    if not inputs.models:
        return Copy(inputs.base)
    ones = (1.0,) * len(inputs.models)
    return TaskMerge(inputs.base, inputs.models, rules, ones, "overlap", ones, normalize=True, alone=alone)


def _bits(value: float, wide: bool) -> int:
    """The bit pattern of a number >= 0 in the compute type: float64 if `wide`, else float32."""
    if wide:
        return int.from_bytes(struct.pack("<d", value), "little")
    try:
        return int.from_bytes(struct.pack("<f", value), "little")
    except OverflowError:  # above every finite float32: only infinities and NaN differ by more
        return _LARGEST
