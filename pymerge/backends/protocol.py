"""The Ops protocol: what every backend can do with tensors in memory.

A backend implements kernels, not methods. `operands` are the task's sources as flat arrays (numpy,
or torch for device backends); positions in a request point into them. Backends agree bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from pymerge.dtypes import DType
from pymerge.ops import Combine, MaskRule, Measure

__all__ = ["NoRoom", "Ops"]


class NoRoom(Exception):
    """A device has no memory for this now."""


class Ops(Protocol):
    """Kernels over whole tensors in memory.

    Attributes:
        name: as `--backend` spells it.
        compiles_at_launch: whether a kernel's first launch on a kind of tensors takes long.
    """

    name: str
    compiles_at_launch: bool

    def measure(self, request: Measure, operands: Sequence[Any], compute: DType) -> object:
        """Run one measure; returns the answer that `pymerge.ops` states for the request.

        Args:
            request: a measure of `pymerge.ops`.
            operands: [n] arrays of one length, each of a mergeable dtype, contiguous.
            compute: float32 or float64.
        """
        ...

    def combine(self, request: Combine, operands: Sequence[Any], compute: DType, out: Any) -> None:
        """Run one combine into `out` ([n] of a mergeable dtype, contiguous, written whole)."""
        ...

    def mask(self, rule: MaskRule, delta: Any, out: Any) -> None:
        """Write the int8 mask (0 or 1) that `rule` stands for on the task vector `delta`."""
        ...
