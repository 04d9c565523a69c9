"""The reference backend: the kernels' specifications, run. Slow, whole tensors in memory; the oracle."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pymerge.backends.calls import Call, call_of, flatten_rule
from pymerge.dtypes import DType
from pymerge.kernels.common.convert import NUMPY_DTYPES, Array
from pymerge.kernels.fusion import spec as fusion
from pymerge.kernels.gram import spec as gram
from pymerge.kernels.mask import spec as mask
from pymerge.kernels.masked_sum import spec as masked_sum
from pymerge.kernels.near_swap import spec as near_swap
from pymerge.kernels.overlap import spec as overlap
from pymerge.kernels.row_divergence import spec as row_divergence
from pymerge.kernels.select import spec as select
from pymerge.kernels.task_merge import spec as task_merge
from pymerge.kernels.weighted_sum import spec as weighted_sum
from pymerge.ops import Combine, Copy, Cut, MaskedTotals, MaskRule, Measure

__all__ = ["ReferenceOps", "decide"]

_NAMES = {dtype: name for name, dtype in NUMPY_DTYPES.items()}

#: Kernel -> its spec, and what makes a request's answer of what that returns.
_MEASURES: dict[str, tuple[Callable[..., Any], Callable[[Any], object]]] = {
    "gram": (gram.run, tuple),
    "gram_lines": (gram.run_lines, lambda sums: array("d", sums.reshape(-1))),
    "select": (select.run, lambda cuts: tuple(Cut(*cut) for cut in cuts)),
    "select_spread": (select.run_spread, lambda cuts: tuple(Cut(*cut) for cut in cuts)),
    "key_sample": (select.run_sample, lambda keys: array("Q", keys.reshape(-1))),
    "key_counts": (select.run_counts, lambda counts: array("Q", counts.reshape(-1))),
    "key_counts_open": (select.run_counts_open, lambda counts: array("Q", counts.reshape(-1))),
    "select_lines": (select.run_lines, lambda cuts: tuple(Cut(*cut) for cut in cuts)),
    "masked_sum": (masked_sum.run, lambda totals: tuple(MaskedTotals(*total) for total in totals)),
    "overlap": (overlap.run, tuple),
    "row_divergence": (row_divergence.run, lambda divergences: divergences),
}
#: Kernel -> what it decides of each element; of the others an output is a continuous function.
_DECISIONS: dict[str, Callable[..., Array]] = {
    "task_merge": task_merge.decide,
    "near_swap": near_swap.decide,
    "fusion": fusion.decide,
}
_COMBINES: dict[str, Callable[..., Array]] = {
    "weighted_sum": weighted_sum.run,
    "weighted_sum_lines": weighted_sum.run_lines,
    "task_merge": task_merge.run,
    "near_swap": near_swap.run,
    "fusion": fusion.run,
}


def _inputs(call: Call, operands: Sequence[Any]) -> tuple[list[Array], Array | None]:
    base = None if call.base is None else operands[call.base]
    return [operands[source] for source in call.sources], base


class ReferenceOps:
    """Numpy, by the letter of kernels/*/spec.py."""

    name = "reference"
    compiles_at_launch = False

    def measure(self, request: Measure, operands: Sequence[Any], compute: DType) -> object:
        """Run one measure; see `pymerge.backends.protocol.Ops`."""
        call = call_of(request)
        run, finish = _MEASURES[call.kernel]
        return finish(run(*_inputs(call, operands), *call.arguments, compute.name))

    def combine(self, request: Combine, operands: Sequence[Any], compute: DType, out: Any) -> None:
        """Run one combine; see `pymerge.backends.protocol.Ops`."""
        if isinstance(request, Copy) and operands[request.source].dtype == out.dtype:
            out[:] = operands[request.source]
            return
        call = call_of(request)
        run = _COMBINES[call.kernel]
        out[:] = run(*_inputs(call, operands), *call.arguments, compute.name, _NAMES[out.dtype])

    def mask(self, rule: MaskRule, delta: Any, out: Any) -> None:
        """Write the int8 mask of a rule; see `pymerge.backends.protocol.Ops`."""
        out[:] = mask.run(flatten_rule(rule), delta)


def decide(request: Combine, operands: Sequence[Any], compute: DType) -> Any:
    """What a combine decides of every element on the way, [decisions, n] integers: none for many requests."""
    call = call_of(request)
    if call.kernel not in _DECISIONS:
        return np.empty((0, operands[0].size), np.int8)
    return _DECISIONS[call.kernel](*_inputs(call, operands), *call.arguments, compute.name)
