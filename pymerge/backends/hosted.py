"""A device's backend for arrays in host memory: copied in, run, copied out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pymerge.backends.calls import call_of
from pymerge.backends.protocol import Ops
from pymerge.dtypes import DType
from pymerge.kernels.common.convert import NUMPY_DTYPES
from pymerge.ops import Combine, MaskRule, Measure

__all__ = ["HostedOps"]

_TORCH = {
    NUMPY_DTYPES["float64"]: torch.float64,
    NUMPY_DTYPES["float32"]: torch.float32,
    NUMPY_DTYPES["float16"]: torch.float16,
    NUMPY_DTYPES["bfloat16"]: torch.bfloat16,
    np.dtype(np.int8): torch.int8,
}


class HostedOps:
    """`ops` of torch tensors on `device`, for numpy arrays (bfloat16 as ml_dtypes' type)."""

    def __init__(self, ops: Ops, device: torch.device) -> None:
        self.name = ops.name
        self.compiles_at_launch = ops.compiles_at_launch
        self._ops = ops
        self._device = device

    def _load(self, array: Any) -> torch.Tensor:
        if array.size == 0:
            # Whatever strides it has, which a view of bytes may not.
            return torch.empty(0, dtype=_TORCH[array.dtype], device=self._device)
        # Bytes, because torch has no ml_dtypes; it warns of arrays that may not be written, so those are copied.
        raw = np.ascontiguousarray(array).view(np.uint8)
        loaded = torch.from_numpy(raw if raw.flags.writeable else raw.copy()).to(self._device)
        return loaded.view(_TORCH[array.dtype])

    def _inputs(self, request: Measure | Combine, operands: Sequence[Any]) -> list[Any]:
        call = call_of(request)
        named = {*call.sources, call.base}
        return [self._load(array) if place in named else None for place, array in enumerate(operands)]

    def measure(self, request: Measure, operands: Sequence[Any], compute: DType) -> object:
        """Run one measure; see `pymerge.backends.protocol.Ops`."""
        return self._ops.measure(request, self._inputs(request, operands), compute)

    def combine(self, request: Combine, operands: Sequence[Any], compute: DType, out: Any) -> None:
        """Run one combine; see `pymerge.backends.protocol.Ops`."""
        made = torch.empty(out.size, dtype=_TORCH[out.dtype], device=self._device)
        self._ops.combine(request, self._inputs(request, operands), compute, made)
        out.view(np.uint8)[:] = made.view(torch.uint8).cpu().numpy()

    def mask(self, rule: MaskRule, delta: Any, out: Any) -> None:
        """Write the int8 mask of a rule; see `pymerge.backends.protocol.Ops`."""
        made = torch.empty(out.size, dtype=torch.int8, device=self._device)
        self._ops.mask(rule, self._load(delta), made)
        out[:] = made.cpu().numpy()
