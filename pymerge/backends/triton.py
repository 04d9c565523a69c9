"""The Triton backend: the same kernels on torch tensors, on any device that Triton compiles for.

Triton and torch are imported with this module, which is imported only where they are wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from pymerge.backends.answers import answer_of
from pymerge.backends.calls import Call, call_of, flatten_rule
from pymerge.dtypes import DType
from pymerge.errors import DTypeError
from pymerge.kernels.fusion import triton as fusion
from pymerge.kernels.gram import triton as gram
from pymerge.kernels.mask import triton as mask
from pymerge.kernels.masked_sum import triton as masked_sum
from pymerge.kernels.near_swap import triton as near_swap
from pymerge.kernels.overlap import triton as overlap
from pymerge.kernels.row_divergence import triton as row_divergence
from pymerge.kernels.select import triton as select
from pymerge.kernels.task_merge import triton as task_merge
from pymerge.kernels.weighted_sum import triton as weighted_sum
from pymerge.ops import Combine, Copy, MaskRule, Measure

__all__ = ["TritonOps"]

#: Kernel -> what makes its raw answer, of the kind that `answer_of` takes.
_MEASURES: dict[str, Callable[..., Any]] = {
    "gram": gram.run,
    "gram_lines": gram.run_lines,
    "select": select.run,
    "select_spread": select.run_spread,
    "select_lines": select.run_lines,
    "key_sample": select.run_sample,
    "key_counts": select.run_counts,
    "key_counts_open": select.run_counts_open,
    "masked_sum": masked_sum.run,
    "overlap": overlap.run,
    "row_divergence": row_divergence.run,
}
_COMBINES: dict[str, Callable[..., None]] = {
    "weighted_sum": weighted_sum.run,
    "weighted_sum_lines": weighted_sum.run_lines,
    "task_merge": task_merge.run,
    "near_swap": near_swap.run,
    "fusion": fusion.run,
}
_MERGEABLE = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def _inputs(call: Call, operands: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    base = None if call.base is None else operands[call.base]
    tensors = [operands[source] for source in call.sources]
    for tensor in (*tensors, *([] if base is None else [base])):
        if tensor.dtype not in _MERGEABLE:
            raise DTypeError(f"kernels merge float64, float32, float16 and bfloat16, not {tensor.dtype}")
    return tensors, base


class TritonOps:
    """Triton kernels on flat torch tensors of one device, on the caller's stream."""

    name = "triton"
    compiles_at_launch = True

    def measure(self, request: Measure, operands: Sequence[torch.Tensor], compute: DType) -> object:
        """Run one measure; see `pymerge.backends.protocol.Ops`."""
        call = call_of(request)
        return answer_of(call, _MEASURES[call.kernel](*_inputs(call, operands), *call.arguments, compute.name))

    def combine(self, request: Combine, operands: Sequence[torch.Tensor], compute: DType, out: torch.Tensor) -> None:
        """Run one combine; see `pymerge.backends.protocol.Ops`."""
        if isinstance(request, Copy) and operands[request.source].dtype == out.dtype:
            out.copy_(operands[request.source])
            return
        call = call_of(request)
        _COMBINES[call.kernel](*_inputs(call, operands), *call.arguments, compute.name, out)

    def mask(self, rule: MaskRule, delta: torch.Tensor, out: torch.Tensor) -> None:
        """Write the int8 mask of a rule; see `pymerge.backends.protocol.Ops`."""
        mask.run(flatten_rule(rule), delta, out)
