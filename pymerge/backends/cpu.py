"""The CPU backend: compiled kernels at the best instruction-set level of the machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pymerge import _core
from pymerge.backends import answers
from pymerge.backends.rules import flatten_lines, flatten_rule, flatten_rules, flatten_task_merge
from pymerge.dtypes import DType
from pymerge.errors import DTypeError
from pymerge.kernels.common.convert import NUMPY_DTYPES
from pymerge.ops import Combine, Copy, Gram, MaskedSum, MaskRule, Measure, NearSwap, Overlap, Select, WeightedSum

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

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads

    def _tensors(self, operands: Sequence[Any], positions: Sequence[int]) -> list[_core.Tensor]:
        return [_core.Tensor.from_buffer(_buffer(operands[p]), _code(operands[p])) for p in positions]

    def _base(self, operands: Sequence[Any], position: int | None) -> _core.Tensor | None:
        return None if position is None else self._tensors(operands, (position,))[0]

    def measure(self, request: Measure, operands: Sequence[Any], compute: DType) -> object:
        """Run one measure; see `pymerge.backends.protocol.Ops`."""
        tensors = self._tensors(operands, request.sources)
        base = self._base(operands, request.base)
        size = len(tensors)
        if isinstance(request, Gram) and request.lines:
            lines = flatten_lines(request.lines)
            return answers.line_sums(_core.gram_lines(tensors, base, compute.name, lines, self._threads))
        if isinstance(request, Gram):
            return answers.gram_matrix(_core.gram(tensors, base, compute.name, self._threads), size)
        if isinstance(request, Select):
            return answers.cuts(_core.select(tensors, base, compute.name, list(request.counts), self._threads))
        rules = flatten_rules(request.rules)
        if isinstance(request, Overlap):
            return answers.overlaps(_core.overlap(tensors, base, compute.name, rules, self._threads), size)
        assert isinstance(request, MaskedSum)
        partials = _core.masked_sum(tensors, base, compute.name, rules, request.norm, self._threads)
        return answers.masked_totals(partials, size, request.norm)

    def combine(self, request: Combine, operands: Sequence[Any], compute: DType, out: Any) -> None:
        """Run one combine; see `pymerge.backends.protocol.Ops`."""
        if isinstance(request, Copy) and operands[request.source].dtype == out.dtype:
            out[:] = operands[request.source]
            return
        if isinstance(request, Copy):
            request = WeightedSum((request.source,), (1.0,))
        tensors = self._tensors(operands, request.sources)
        code, buffer = _code(out), _buffer(out)
        if isinstance(request, WeightedSum) and request.lines:
            _core.weighted_sum_lines(
                tensors,
                self._base(operands, request.base),
                compute.name,
                code,
                request.coefficients,
                flatten_lines(request.lines),
                buffer,
                self._threads,
            )
            return
        if isinstance(request, WeightedSum):
            _core.weighted_sum(tensors, compute.name, code, list(request.coefficients), buffer, self._threads)
            return
        base = self._base(operands, request.base)
        assert base is not None
        if isinstance(request, NearSwap):
            _core.near_swap(tensors, base, compute.name, code, request.t, buffer, self._threads)
            return
        _core.task_merge(
            tensors,
            base,
            compute.name,
            code,
            *flatten_task_merge(request),
            buffer,
            self._threads,
        )

    def mask(self, rule: MaskRule, delta: Any, out: Any) -> None:
        """Write the int8 mask of a rule; see `pymerge.backends.protocol.Ops`."""
        tensor = _core.Tensor.from_buffer(_buffer(delta), _code(delta))
        compute = "float64" if delta.dtype == np.float64 else "float32"
        _core.mask(tensor, flatten_rule(rule), compute, out)
