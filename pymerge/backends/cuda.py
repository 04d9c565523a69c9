"""The CUDA backend: kernels compiled ahead, on torch tensors of an NVIDIA GPU.

torch and the compiled kernels are imported with this module, which is imported only where they are wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from pymerge import _cuda
from pymerge.backends.answers import answer_of
from pymerge.backends.calls import Call, call_of, flatten_rule
from pymerge.dtypes import DType
from pymerge.errors import DTypeError, ShapeError
from pymerge.ops import Combine, Copy, MaskRule, Measure

__all__ = ["CudaOps"]

_CODES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int8: "I8"}


def _tensor(tensor: torch.Tensor) -> _cuda.DeviceTensor:
    try:
        code = _CODES[tensor.dtype]
    except KeyError:
        raise DTypeError(f"kernels merge float64, float32, float16 and bfloat16, not {tensor.dtype}") from None
    if not tensor.is_contiguous():
        raise ShapeError("kernels take flat, contiguous tensors")
    return _cuda.DeviceTensor(tensor.data_ptr(), code, tensor.numel())


def _on(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """The tensor's device is the current one meanwhile."""
    return nullcontext() if _cuda.EMULATED else torch.cuda.device(tensor.device)


def _stream() -> int:
    """The caller's stream on the current device."""
    return 0 if _cuda.EMULATED else torch.cuda.current_stream().cuda_stream


def _inputs(call: Call, operands: Sequence[torch.Tensor]) -> tuple[list[_cuda.DeviceTensor], _cuda.DeviceTensor | None]:
    base = None if call.base is None else _tensor(operands[call.base])
    return [_tensor(operands[source]) for source in call.sources], base


class CudaOps:
    """Compiled kernels on flat torch tensors of one device, on the caller's stream.

    Combines return when they are on the stream.
    """

    name = "cuda"
    compiles_at_launch = False

    def measure(self, request: Measure, operands: Sequence[torch.Tensor], compute: DType) -> object:
        """Run one measure; see `pymerge.backends.protocol.Ops`."""
        call = call_of(request)
        with _on(operands[call.sources[0]]):
            kernel = getattr(_cuda, call.kernel)
            return answer_of(call, kernel(*_inputs(call, operands), compute.name, *call.arguments, _stream()))

    def combine(self, request: Combine, operands: Sequence[torch.Tensor], compute: DType, out: torch.Tensor) -> None:
        """Run one combine; see `pymerge.backends.protocol.Ops`."""
        if isinstance(request, Copy) and operands[request.source].dtype == out.dtype:
            out.copy_(operands[request.source])
            return
        call = call_of(request)
        made = _tensor(out)
        with _on(out):
            kernel = getattr(_cuda, call.kernel)
            kernel(*_inputs(call, operands), compute.name, _CODES[out.dtype], *call.arguments, made, _stream())

    def mask(self, rule: MaskRule, delta: torch.Tensor, out: torch.Tensor) -> None:
        """Write the int8 mask of a rule; see `pymerge.backends.protocol.Ops`."""
        compute = "float64" if delta.dtype == torch.float64 else "float32"
        with _on(out):
            _cuda.mask(_tensor(delta), flatten_rule(rule), compute, _tensor(out), _stream())
