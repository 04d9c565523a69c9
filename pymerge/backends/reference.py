"""The reference backend: the kernels' specifications, run. Slow, whole tensors in memory; the oracle."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from pymerge.backends.rules import flatten_lines, flatten_rule, flatten_rules, flatten_task_merge
from pymerge.dtypes import DType
from pymerge.kernels.common.convert import NUMPY_DTYPES
from pymerge.kernels.gram import spec as gram
from pymerge.kernels.mask import spec as mask
from pymerge.kernels.masked_sum import spec as masked_sum
from pymerge.kernels.near_swap import spec as near_swap
from pymerge.kernels.overlap import spec as overlap
from pymerge.kernels.select import spec as select
from pymerge.kernels.task_merge import spec as task_merge
from pymerge.kernels.weighted_sum import spec as weighted_sum
from pymerge.ops import (
    Combine,
    Copy,
    Cut,
    Gram,
    MaskedSum,
    MaskedTotals,
    MaskRule,
    Measure,
    NearSwap,
    Overlap,
    Select,
    WeightedSum,
)

__all__ = ["ReferenceOps"]

_NAMES = {dtype: name for name, dtype in NUMPY_DTYPES.items()}


class ReferenceOps:
    """Numpy, by the letter of kernels/*/spec.py."""

    name = "reference"

    def measure(self, request: Measure, operands: Sequence[Any], compute: DType) -> object:
        """Run one measure; see `pymerge.backends.protocol.Ops`."""
        tensors = [operands[source] for source in request.sources]
        base = None if request.base is None else operands[request.base]
        if isinstance(request, Gram) and request.lines:
            sums = gram.run_lines(tensors, base, compute.name, *flatten_lines(request.lines))
            return array("d", sums.reshape(-1))
        if isinstance(request, Gram):
            return gram.run(tensors, base, compute.name)
        if isinstance(request, Select):
            return tuple(Cut(*cut) for cut in select.run(tensors, base, request.counts, compute.name))
        rules = flatten_rules(request.rules)
        if isinstance(request, Overlap):
            return overlap.run(tensors, base, rules, compute.name)
        assert isinstance(request, MaskedSum)
        totals = masked_sum.run(tensors, base, rules, compute.name, request.norm)
        return tuple(MaskedTotals(*total) for total in totals)

    def combine(self, request: Combine, operands: Sequence[Any], compute: DType, out: Any) -> None:
        """Run one combine; see `pymerge.backends.protocol.Ops`."""
        if isinstance(request, Copy) and operands[request.source].dtype == out.dtype:
            out[:] = operands[request.source]
            return
        if isinstance(request, Copy):
            request = WeightedSum((request.source,), (1.0,))
        tensors = [operands[source] for source in request.sources]
        name = _NAMES[out.dtype]
        if isinstance(request, WeightedSum) and request.lines:
            base = None if request.base is None else operands[request.base]
            lines = flatten_lines(request.lines)
            out[:] = weighted_sum.run_lines(tensors, base, request.coefficients, *lines, compute.name, name)
            return
        if isinstance(request, WeightedSum):
            out[:] = weighted_sum.run(tensors, request.coefficients, compute.name, name)
            return
        base = operands[request.base]
        if isinstance(request, NearSwap):
            out[:] = near_swap.run(tensors, base, request.t, compute.name, name)
            return
        out[:] = task_merge.run(
            tensors,
            base,
            *flatten_task_merge(request),
            compute.name,
            name,
        )

    def mask(self, rule: MaskRule, delta: Any, out: Any) -> None:
        """Write the int8 mask of a rule; see `pymerge.backends.protocol.Ops`."""
        out[:] = mask.run(flatten_rule(rule), delta)
