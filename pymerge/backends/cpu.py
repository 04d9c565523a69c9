"""The CPU backend: compiled kernels at the best instruction-set level of the machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pymerge import _core
from pymerge.backends.answers import answer_of
from pymerge.backends.calls import call_of, flatten_rule
from pymerge.dtypes import DType
from pymerge.errors import DTypeError
from pymerge.kernels.common.convert import NUMPY_DTYPES
from pymerge.ops import Combine, Copy, MaskRule, Measure

__all__ = ["CpuOps"]

_CODES = {
    NUMPY_DTYPES["float64"]: "F64",
    NUMPY_DTYPES["float32"]: "F32",
    NUMPY_DTYPES["float16"]: "F16",
    NUMPY_DTYPES["bfloat16"]: "BF16",
}


def _code(array: Any) -> str:
    try:
        return _CODES[array.dtype]
    except KeyError:
        raise DTypeError(f"kernels merge float64, float32, float16 and bfloat16, not {array.dtype}") from None


def _buffer(array: Any) -> Any:
    # numpy cannot export ml_dtypes through the buffer protocol: hand over the words.
    return array.view(np.uint16) if array.dtype.itemsize == 2 else array


class CpuOps:
    """Compiled kernels on flat numpy arrays."""

    name = "cpu"
    compiles_at_launch = False

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads

    def _tensors(self, operands: Sequence[Any], positions: Sequence[int]) -> list[_core.Tensor]:
        return [_core.Tensor.from_buffer(_buffer(operands[p]), _code(operands[p])) for p in positions]

    def _base(self, operands: Sequence[Any], position: int | None) -> _core.Tensor | None:
        return None if position is None else self._tensors(operands, (position,))[0]

    def measure(self, request: Measure, operands: Sequence[Any], compute: DType) -> object:
        """Run one measure; see `pymerge.backends.protocol.Ops`."""
        call = call_of(request)
        kernel = getattr(_core, call.kernel)
        inputs = self._tensors(operands, call.sources), self._base(operands, call.base)
        return answer_of(call, kernel(*inputs, compute.name, *call.arguments, self._threads))

    def combine(self, request: Combine, operands: Sequence[Any], compute: DType, out: Any) -> None:
        """Run one combine; see `pymerge.backends.protocol.Ops`."""
        if isinstance(request, Copy) and operands[request.source].dtype == out.dtype:
            out[:] = operands[request.source]
            return
        call = call_of(request)
        kernel = getattr(_core, call.kernel)
        inputs = self._tensors(operands, call.sources), self._base(operands, call.base)
        kernel(*inputs, compute.name, _code(out), *call.arguments, _buffer(out), self._threads)

    def mask(self, rule: MaskRule, delta: Any, out: Any) -> None:
        """Write the int8 mask of a rule; see `pymerge.backends.protocol.Ops`."""
        tensor = _core.Tensor.from_buffer(_buffer(delta), _code(delta))
        compute = "float64" if delta.dtype == np.float64 else "float32"
        _core.mask(tensor, flatten_rule(rule), compute, out)
