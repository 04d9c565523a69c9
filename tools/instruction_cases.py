"""What tools/instructions.py counts: every kernel in its variants, every merge method, the engine.

Run by it, inside valgrind, as `python -m tools.instruction_cases LIBRARY`; LIBRARY passes requests to
callgrind. Costs that do not grow with the tensor drop out, since each case runs at two lengths.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from array import array
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from pymerge import _core, merge_tensors
from pymerge.backends.cpu import CpuOps
from pymerge.dtypes import BY_NAME
from pymerge.kernels.common.convert import NUMPY_DTYPES
from pymerge.methods import get_method, method_names
from pymerge.methods.base import REQUIRED, BaseRule
from pymerge.ops import (
    KEEP_ALL,
    Band,
    Bernoulli,
    Combine,
    Cut,
    Fusion,
    Gram,
    KeyCounts,
    Lines,
    MaskedSum,
    MaskRule,
    Measure,
    NearSwap,
    Overlap,
    RankBernoulli,
    RowDivergence,
    Select,
    SelectSpread,
    Spread,
    TaskMerge,
    TopK,
    WeightedSum,
)

__all__ = ["LENGTHS", "Run", "list_cases"]

#: Two and four measuring tiles: both long enough that a select samples first.
LENGTHS = (1 << 19, 1 << 20)

#: What methods are given for parameters of these names; others keep their defaults.
VALUES: dict[str, Any] = {"weight": 0.6, "density": 0.5, "gamma": 0.1, "t": 0.3, "scale": 0.8}

Run = Callable[[], object]
Request = Measure | Combine


@cache
def _models(dtype: str) -> tuple[Any, ...]:
    """A base and three fine-tunes near it."""
    random = np.random.default_rng(0)
    base = random.standard_normal(LENGTHS[-1], np.float32) * 0.02
    tuned = (base + random.standard_normal(LENGTHS[-1], np.float32) * 0.002 for _ in range(3))
    return tuple(tensor.astype(NUMPY_DTYPES[dtype]) for tensor in (base, *tuned))


def _operands(dtype: str, count: int) -> list[Any]:
    return [tensor[:count] for tensor in _models(dtype)]


@cache
def _cuts(dtype: str, count: int) -> tuple[Any, ...]:
    """For the three fine-tunes: where their largest tenth ends, then where their largest half does."""
    counts = (count // 10,) * 3 + (count // 2,) * 3
    answer = CpuOps().measure(Select((1, 2, 3) * 2, counts, 0), _operands(dtype, count), BY_NAME["float32"])
    return tuple(answer)  # type: ignore[arg-type]  # a select's answer is cuts


def _top(dtype: str, count: int) -> tuple[MaskRule, ...]:
    return tuple(TopK(cut) for cut in _cuts(dtype, count)[3:])


def _band(dtype: str, count: int) -> tuple[MaskRule, ...]:
    cuts = _cuts(dtype, count)
    return tuple(Band(outer, inner) for inner, outer in zip(cuts[:3], cuts[3:], strict=True))


def _drop(dtype: str, count: int) -> tuple[MaskRule, ...]:
    return tuple(Bernoulli(1 << 15, key) for key in (7, 11, 13))


def _ranked(dtype: str, count: int) -> tuple[MaskRule, ...]:
    # Rows of 4,096: long enough that classes are counted.
    return tuple(RankBernoulli(0.5, 0.125, key, 1 << 12) for key in (7, 11, 13))


def _all(dtype: str, count: int) -> tuple[MaskRule, ...]:
    return (KEEP_ALL,) * 3


def _above() -> tuple[MaskRule, ...]:
    return (TopK(Cut(0x3727C5AC, -1)),) * 3  # magnitudes above 1e-5


#: Elements that are more than 1e-3 apart.
_APART = Spread(Cut(0x358637BD, -1))


def _task_merge(rules: tuple[MaskRule, ...], elect: bool) -> TaskMerge:
    sources = tuple(range(1, len(rules) + 1))
    weights = (0.6,) * len(rules)
    return TaskMerge(0, sources, rules, weights, "sum" if elect else "none", weights if elect else (), elect)


def _cut(count: int, *, strided: bool = False) -> Lines:
    """Rows, or as many columns, of a length that ends within a block."""
    return Lines(1 << 7, count >> 7, strided)


def _rows(count: int) -> Lines:
    """As many rows as the tensor holds, of a usual length."""
    return Lines(count >> 11, 1 << 11)


def _factors(count: int) -> array[float]:
    return array("d", np.linspace(1e-4, 1e-3, _rows(count).count))


def _sum_lines(lines: Lines) -> WeightedSum:
    return WeightedSum((1, 2), array("d", [0.3] * (2 * lines.count)), 0, lines)


#: Kernel and variant -> (its request, from element type and length; element types to count it with).
KERNELS: dict[str, tuple[Callable[[str, int], Request], tuple[str, ...]]] = {
    "gram/2": (lambda dtype, n: Gram((0, 1)), ("bfloat16", "float16", "float32", "float64")),
    "gram/3-from-base": (lambda dtype, n: Gram((1, 2, 3), 0), ("bfloat16",)),
    "gram/rows-2": (lambda dtype, n: Gram((0, 1), None, _cut(n)), ("bfloat16", "float32")),
    "gram/columns-2": (lambda dtype, n: Gram((0, 1), None, _cut(n, strided=True)), ("bfloat16",)),
    "select/2": (lambda dtype, n: Select((1, 2), (n // 2,) * 2, 0), ("bfloat16", "float16", "float32", "float64")),
    "select/band": (lambda dtype, n: Select((1, 1), (n // 10, n // 2), 0), ("bfloat16",)),
    "key_counts/few-1": (lambda dtype, n: KeyCounts((1,), (0x3A000000,), 0, 1 << 16, 0, True), ("bfloat16",)),
    "key_counts/1": (lambda dtype, n: KeyCounts((1,), (0,), 15, 1 << 16, 0), ("bfloat16",)),
    "masked_sum/random": (lambda dtype, n: MaskedSum((1, 2), _drop(dtype, n)[:2], 0), ("bfloat16", "float32")),
    "masked_sum/top": (lambda dtype, n: MaskedSum((1, 2), _top(dtype, n)[:2], 0), ("bfloat16",)),
    "masked_sum/squares": (lambda dtype, n: MaskedSum((1, 2), _top(dtype, n)[:2], 0, "l2"), ("bfloat16",)),
    "select/spread-2": (lambda dtype, n: SelectSpread((1, 2), 0.1), ("bfloat16",)),
    "masked_sum/spread-2": (lambda dtype, n: MaskedSum((1, 2), (_APART,) * 2, 0, "l2"), ("bfloat16",)),
    "masked_sum/ranked": (lambda dtype, n: MaskedSum((1, 2), _ranked(dtype, n)[:2], 0), ("bfloat16", "float32")),
    "row_divergence/near": (lambda dtype, n: RowDivergence((1,), 0, _rows(n)), ("bfloat16", "float32")),
    "row_divergence/far": (lambda dtype, n: RowDivergence((1,), 0, _rows(n)), ("float64",)),
    "select/rows": (
        lambda dtype, n: Select((1,) * 3, (n // 4, n // 2, n // 3), 0, factors=_factors(n), lines=_rows(n)),
        ("bfloat16", "float32"),
    ),
    "fusion/1": (
        lambda dtype, n: Fusion(0, (1,), _factors(n), _rows(n), 2e-6),
        ("bfloat16", "float16", "float32", "float64"),
    ),
    "overlap/2": (lambda dtype, n: Overlap((1, 2), _above()[:2], 0), ("bfloat16",)),
    "weighted_sum/2": (
        lambda dtype, n: WeightedSum((0, 1), (0.3, 0.7)),
        ("bfloat16", "float16", "float32", "float64"),
    ),
    "weighted_sum/4": (lambda dtype, n: WeightedSum((0, 1, 2, 3), (0.25,) * 4), ("bfloat16",)),
    "near_swap/1": (lambda dtype, n: NearSwap(0, (1,), 1e-3), ("bfloat16", "float16", "float32", "float64")),
    "weighted_sum/rows-2": (lambda dtype, n: _sum_lines(_cut(n)), ("bfloat16",)),
    "weighted_sum/columns-2": (lambda dtype, n: _sum_lines(_cut(n, strided=True)), ("bfloat16",)),
    "task_merge/arithmetic-2": (
        lambda dtype, n: _task_merge(_all(dtype, n)[:2], False),
        ("bfloat16", "float16", "float32"),
    ),
    "task_merge/count-2": (
        lambda dtype, n: TaskMerge(0, (1, 2), _top(dtype, n)[:2], (0.6, 0.6), "count", (0.6, 0.6), True),
        ("bfloat16",),
    ),
    "task_merge/spread-2": (
        lambda dtype, n: TaskMerge(0, (1, 2), (_APART,) * 2, (0.4, 0.6), "sum", (0.4, 0.6), True, 1.0, (1.0, 1.0)),
        ("bfloat16",),
    ),
    "task_merge/pick-2": (
        lambda dtype, n: TaskMerge(0, (1, 2), _all(dtype, n)[:2], (1.0, 1.0), "sum", pick=True),
        ("bfloat16",),
    ),
    "task_merge/overlap-2": (
        lambda dtype, n: TaskMerge(0, (1, 2), _above()[:2], (1.0, 1.0), "overlap", (1.0, 1.0), True),
        ("bfloat16",),
    ),
    "task_merge/ties-2": (lambda dtype, n: _task_merge(_top(dtype, n)[:2], True), ("bfloat16", "float16", "float32")),
    "task_merge/ties-3": (lambda dtype, n: _task_merge(_top(dtype, n), True), ("bfloat16",)),
    "task_merge/dare-2": (lambda dtype, n: _task_merge(_drop(dtype, n)[:2], False), ("bfloat16",)),
    "task_merge/dare-ties-2": (lambda dtype, n: _task_merge(_drop(dtype, n)[:2], True), ("bfloat16",)),
    "task_merge/della-2": (lambda dtype, n: _task_merge(_ranked(dtype, n)[:2], True), ("bfloat16",)),
    "task_merge/breadcrumbs-2": (lambda dtype, n: _task_merge(_band(dtype, n)[:2], False), ("bfloat16",)),
}
#: Rules that the mask kernel writes out; it is the one kernel whose request is a rule.
MASKS: dict[str, Callable[[str, int], tuple[MaskRule, ...]]] = {"random": _drop, "ranked": _ranked, "top": _top}


def _run_kernel(request: Request, dtype: str, count: int) -> Run:
    ops, operands = CpuOps(), _operands(dtype, count)
    compute = BY_NAME["float64" if dtype == "float64" else "float32"]
    if isinstance(request, (WeightedSum, TaskMerge, NearSwap, Fusion)):
        out = np.empty(count, NUMPY_DTYPES[dtype])
        return lambda: ops.combine(request, operands, compute, out)
    assert isinstance(request, (Gram, Select, SelectSpread, KeyCounts, MaskedSum, Overlap, RowDivergence))
    return lambda: ops.measure(request, operands, compute)


def _run_mask(rule: MaskRule, count: int) -> Run:
    delta, out = _operands("float32", count)[1], np.empty(count, np.int8)
    return lambda: CpuOps().mask(rule, delta, out)


@cache
def _bytes(count: int, code: str = "U8") -> _core.Tensor:
    codes = np.random.default_rng(0).integers(0, 120, count, np.uint8)
    return _core.Tensor.from_buffer(codes, code)


def _scale_blocks(count: int) -> _core.Tensor:
    scales = _core.Tensor.from_buffer(np.ones(count >> 14, np.float32).view(np.uint32), "F32")
    return _core.Tensor.scale_blocks(_bytes(count, "F8_E4M3"), scales, (1, count >> 10, 1 << 10, 128, 128))


def _scale_groups(count: int) -> _core.Tensor:
    return _core.Tensor.scale_groups(_bytes(count // 2), _bytes(count // 32), count >> 10, 1 << 5)


def _add_low_rank(count: int) -> _core.Tensor:
    """Rank 16 on a matrix of a usual width."""
    rows, columns, rank = count >> 11, 1 << 11, 16
    weights = np.random.default_rng(0).standard_normal((rows + columns) * rank, np.float32).view(np.uint32)
    a, b = (_core.Tensor.from_buffer(part, "F32") for part in (weights[: columns * rank], weights[columns * rank :]))
    base = _core.Tensor.from_buffer(_models("bfloat16")[0][:count].view(np.uint16), "BF16")
    return _core.Tensor.add_low_rank(base, [(a, b, rank, 0.5, False)], rows, columns)


def _take_rows(count: int) -> _core.Tensor:
    """Rows in another order, as float32."""
    rows = count >> 11
    base = _core.Tensor.from_buffer(_models("bfloat16")[0][:count].view(np.uint16), "BF16")
    starts, zeros = array("q", range(rows + 1)), array("q", bytes(8 * rows))
    return _core.Tensor.take_rows([base], starts, zeros, array("q", range(rows - 1, -1, -1)), 1 << 11, "F32")


#: Tensors that are decoded while they are read: what it takes to make and read them.
DERIVED: dict[str, Callable[[int], _core.Tensor]] = {
    "dequantize/fp8": _scale_blocks,
    "dequantize/mxfp4": _scale_groups,
    "dequantize/q8_0": lambda n: _core.Tensor.unpack_blocks(_bytes(n // 32 * 34), "Q8_0"),
    "dequantize/q4_k": lambda n: _core.Tensor.unpack_blocks(_bytes(n // 256 * 144), "Q4_K"),
    "low_rank/16": _add_low_rank,
    "rows/moved": _take_rows,
    "noise/normal": lambda n: _core.Tensor.add_noise(None, n, 7, 0.5, "normal"),
    "noise/uniform": lambda n: _core.Tensor.add_noise(None, n, 7, 0.5, "uniform"),
}


def _run_derived(make: Callable[[int], _core.Tensor], count: int) -> Run:
    out = np.empty(count, np.float32)
    return lambda: make(count).read_into(0, out)


def _run_pack(form: str, count: int) -> Run:
    values, out = _operands("float32", count)[1], np.empty(count // 32 * 34, np.uint8)
    return lambda: _core.Tensor.from_buffer(values.view(np.uint32), "F32").pack_into(form, 0, out)


def _run_method(name: str, count: int) -> Run:
    method = get_method(name)
    base, *tuned = (tensor.reshape(-1, _rows(count).length) for tensor in _operands("bfloat16", count))
    based = method.base is BaseRule.REQUIRED
    models = max(method.minimum, 2) if method.maximum is None else min(method.maximum, 2)
    parameters = {p.name: VALUES[p.name] for p in method.parameters if p.name in VALUES}
    missing = [p.name for p in method.parameters if p.default is REQUIRED and p.name not in VALUES]
    if missing:
        raise SystemExit(f"instruction_cases: {name} needs {', '.join(missing)}; say what to give it in VALUES")
    return lambda: merge_tensors(
        name, tuned[:models], base=base if based else None, parameters=parameters, threads=1, backend="cpu"
    )


def _run_engine(fill: str, folder: Path, count: int) -> Run:
    """One tensor from a mapped file to an output file: what a merge adds around the kernels."""
    source = folder / "input"
    if not source.exists():
        source.write_bytes(_models("bfloat16")[0].tobytes())

    def run() -> None:
        engine = _core.Engine(threads=1, block=1 << 19, buffers=4, writers=1, direct=False, stop_on_nonfinite=True)
        tensor = _core.Tensor.from_file(_core.MappedFile(str(source)), 0, count, "BF16")
        engine.open_shard(str(folder / "partial"), str(folder / "output"), [(0, 2 * count)])
        if fill == "copy":
            engine.fill_copy(0, 0, tensor)
        else:
            combine = engine.combine_weighted_sum([tensor, tensor], None, "float32", "BF16", [0.5, 0.5])
            engine.fill_combine(0, 0, combine)
        while not engine.status()["shards_finished"]:
            engine.wait(1.0)
        engine.stop()

    return run


def list_cases(count: int, folder: Path) -> Iterator[tuple[str, Run]]:
    """Every case at one length, by the name that its count is kept under; files go to `folder`."""
    for name, (make, dtypes) in KERNELS.items():
        for dtype in dtypes:
            yield f"kernel/{name}/{dtype}", _run_kernel(make(dtype, count), dtype, count)
    for name, rules in MASKS.items():
        yield f"kernel/mask/{name}/float32", _run_mask(rules("float32", count)[0], count)
    for name, derive in DERIVED.items():
        yield f"kernel/{name}/float32", _run_derived(derive, count)
    yield "kernel/pack/q8_0/float32", _run_pack("Q8_0", count)
    for name in method_names():
        yield f"method/{name}/bfloat16", _run_method(name, count)
    for fill in ("copy", "weighted_sum"):
        yield f"engine/{fill}/bfloat16", _run_engine(fill, folder, count)


def main() -> None:
    """Run each case at each length between two requests to callgrind, which writes one file for it."""
    callgrind = ctypes.CDLL(sys.argv[1])
    with TemporaryDirectory() as folder:
        runs = [(f"{name}@{count}", run) for count in LENGTHS for name, run in list_cases(count, Path(folder))]
        # Once without counting: what is imported, allocated or remembered at first use.
        for _, run in runs:
            run()
        gc.disable()
        callgrind.start()
        for name, run in runs:
            label = name.encode()
            callgrind.zero()
            run()
            callgrind.dump(label)


if __name__ == "__main__":
    main()
