"""What the RAM methods share: which elements a task vector changes, and how changes are averaged."""

from __future__ import annotations

import struct

from pymerge.methods.base import Inputs, Parameter
from pymerge.ops import Combine, Copy, Cut, MaskRule, TaskMerge, TopK

__all__ = ["EPSILON", "average_changes", "change_rules"]

EPSILON = Parameter(
    "epsilon", float, "an element counts as changed if it differs by more than this", default=1e-5, minimum=0.0
)


def change_rules(inputs: Inputs) -> tuple[MaskRule, ...]:
    """Per model: kept is what differs from the base by more than epsilon."""
    epsilon = inputs.number("epsilon")
    (bits,) = struct.unpack("<q", struct.pack("<d", epsilon)) if inputs.wide else _narrow_bits(epsilon)
    return (TopK(Cut(bits, -1)),) * len(inputs.models)


def average_changes(inputs: Inputs, rules: tuple[MaskRule, ...], alone: tuple[float, ...] = ()) -> Combine:
    """The base plus, at each element, the mean of the changes there; times `alone` where there is one only."""
    assert inputs.base is not None
    if not inputs.models:
        return Copy(inputs.base)
    ones = (1.0,) * len(inputs.models)
    return TaskMerge(inputs.base, inputs.models, rules, ones, "overlap", ones, normalize=True, alone=alone)


def _narrow_bits(value: float) -> tuple[int]:
    try:
        packed = struct.pack("<f", value)
    except OverflowError:  # above every finite float32: only infinities and NaN differ by more
        packed = struct.pack("<I", 0x7F7FFFFF)
    (bits,) = struct.unpack("<i", packed)
    return (bits,)
