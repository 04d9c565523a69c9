"""The launches that tools/triton_code.py looks at: each kernel as users' merges need it most."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from pymerge.backends.triton import TritonOps
from pymerge.dtypes import BY_NAME
from pymerge.ops import (
    KEEP_ALL,
    Bernoulli,
    Combine,
    Cut,
    Fusion,
    Gram,
    Lines,
    Measure,
    NearSwap,
    TaskMerge,
    TopK,
    WeightedSum,
)

__all__ = ["CASES"]

_COUNT = 1 << 16
_ROWS = Lines(64, 1 << 10)
_COLUMNS = Lines(1 << 10, 64, strided=True)
_ONES = (1.0,) * (1 << 10)
_TOP = TopK(Cut(0x3C000000, 500))
_DROP = Bernoulli(30_000, 1)


def _merge(models: int, rule: object, consensus: str = "none") -> TaskMerge:
    weights = (0.5,) * models
    return TaskMerge(0, tuple(range(1, models + 1)), (rule,) * models, weights, consensus, weights, consensus != "none")


_COMBINES: dict[str, Combine] = {
    "weighted_sum/1": WeightedSum((1,), (0.5,)),
    "weighted_sum/2": WeightedSum((1, 2), (0.5, 0.5)),
    "weighted_sum/5": WeightedSum((1, 2, 3, 4, 5), (0.5,) * 5),
    "weighted_sum/rows-2": WeightedSum((1, 2), _ONES[:64] * 2, None, _ROWS),
    "weighted_sum/columns-2": WeightedSum((1, 2), _ONES * 2, 0, _COLUMNS),
    "task_merge/arithmetic-2": _merge(2, KEEP_ALL),
    "task_merge/ties-2": _merge(2, _TOP, "sum"),
    "task_merge/ties-3": _merge(3, _TOP, "sum"),
    "task_merge/ties-5": _merge(5, _TOP, "sum"),
    "task_merge/dare-2": _merge(2, _DROP),
    "task_merge/dare-ties-3": _merge(3, _DROP, "sum"),
    "near_swap/1": NearSwap(0, (1,), 0.01),
    "fusion/rows": Fusion(0, (1,), _ONES[:64], _ROWS, 0.01),
}
_MEASURES: dict[str, Measure] = {
    "gram/2": Gram((1, 2)),
    "gram/3-from-base": Gram((1, 2, 3), 0),
    "gram/rows-2": Gram((1, 2), None, _ROWS),
    "gram/columns-2": Gram((1, 2), None, _COLUMNS),
}


def _operands(dtype: str) -> list[torch.Tensor]:
    return [torch.zeros(_COUNT, dtype=getattr(torch, dtype)) for _ in range(6)]


def _combine(request: Combine, dtype: str) -> None:
    operands = _operands(dtype)
    TritonOps().combine(request, operands, BY_NAME["float32"], torch.empty_like(operands[0]))


def _measure(request: Measure, dtype: str) -> None:
    TritonOps().measure(request, _operands(dtype), BY_NAME["float32"])


def _all_cases() -> dict[str, Callable[[], None]]:
    cases: dict[str, Callable[[], None]] = {}
    for dtype in ("bfloat16", "float32"):
        cases.update({f"{name}/{dtype}": partial(_combine, request, dtype) for name, request in _COMBINES.items()})
        cases.update({f"{name}/{dtype}": partial(_measure, request, dtype) for name, request in _MEASURES.items()})
    return cases


CASES = _all_cases()
