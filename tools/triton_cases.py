"""The launches that tools/triton_code.py looks at: each kernel as users' merges need it most."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from pymerge.backends.triton import TritonOps
from pymerge.dtypes import BY_NAME
from pymerge.kernels.select.triton.scores import Scores
from pymerge.ops import (
    KEEP_ALL,
    Bernoulli,
    Combine,
    Cut,
    Fusion,
    Gram,
    Lines,
    MaskedSum,
    Measure,
    NearSwap,
    Overlap,
    RankBernoulli,
    RowDivergence,
    Select,
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
_RANKED = RankBernoulli(0.5, 0.1, 1, 1 << 10)


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
    "task_merge/della-2": _merge(2, _RANKED),
    "near_swap/1": NearSwap(0, (1,), 0.01),
    "fusion/rows": Fusion(0, (1,), _ONES[:64], _ROWS, 0.01),
}
_MEASURES: dict[str, Measure] = {
    "gram/2": Gram((1, 2)),
    "gram/3-from-base": Gram((1, 2, 3), 0),
    "gram/rows-2": Gram((1, 2), None, _ROWS),
    "gram/columns-2": Gram((1, 2), None, _COLUMNS),
    "masked_sum/dare-2": MaskedSum((1, 2), (_DROP,) * 2, 0),
    "masked_sum/ties-3": MaskedSum((1, 2, 3), (_TOP,) * 3, 0),
    "masked_sum/largest-3": MaskedSum((1, 2, 3), (_TOP,) * 3, 0, "linf"),
    "overlap/2": Overlap((1, 2), (_TOP,) * 2, 0),
    "row_divergence/rows": RowDivergence((1,), 0, _ROWS),
    "select/small-2": Select((1, 2), (5, 5), 0),
}
#: The passes over tensors that are not small, which go by what comes back.
_PASSES: dict[str, Callable[[Scores], object]] = {
    "sample": lambda scores: scores.sample(1 << 14),
    "scan": lambda scores: scores.scan(range(scores.kinds), scores.zeros(scores.kinds, 2), 1 << 10),
    "counts": lambda scores: scores.counts([0], [0], [20], 1 << 11),
    "key-counts": lambda scores: scores.counts([0], [0], [15], 1 << 16),
}


def _operands(dtype: str) -> list[torch.Tensor]:
    return [torch.zeros(_COUNT, dtype=getattr(torch, dtype)) for _ in range(6)]


def _combine(request: Combine, dtype: str) -> None:
    operands = _operands(dtype)
    TritonOps().combine(request, operands, BY_NAME["float32"], torch.empty_like(operands[0]))


def _measure(request: Measure, dtype: str) -> None:
    TritonOps().measure(request, _operands(dtype), BY_NAME["float32"])


def _select(run: Callable[[Scores], object], how: str, dtype: str) -> None:
    base, *tensors = _operands(dtype)[:3]
    if how == "lines":
        run(Scores((tensors[0],), base, "float32", how, torch.ones(64), (_ROWS.count, _ROWS.length, False)))
    else:
        run(Scores(tuple(tensors), base if how == "delta" else None, "float32", how))


def _all_cases() -> dict[str, Callable[[], None]]:
    cases: dict[str, Callable[[], None]] = {}
    for dtype in ("bfloat16", "float32"):
        cases.update({f"{name}/{dtype}": partial(_combine, request, dtype) for name, request in _COMBINES.items()})
        cases.update({f"{name}/{dtype}": partial(_measure, request, dtype) for name, request in _MEASURES.items()})
        cases.update(
            {f"select/{name}-2/{dtype}": partial(_select, run, "delta", dtype) for name, run in _PASSES.items()}
        )
        for how in ("lines", "spread"):
            cases[f"select/scan-{how}/{dtype}"] = partial(_select, _PASSES["scan"], how, dtype)
    return cases


CASES = _all_cases()
