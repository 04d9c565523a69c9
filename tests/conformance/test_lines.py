"""Numbers per row and per column: the specification's bits at every level and thread count, and its formula."""

from __future__ import annotations

from array import array
from typing import Any

import kernel_cases as cases
import numpy as np
import pytest

from pymerge.backends.cpu import CpuOps
from pymerge.backends.protocol import Ops
from pymerge.backends.reference import ReferenceOps
from pymerge.dtypes import BY_NAME
from pymerge.kernels.common.canonical import BLOCK, TILE
from pymerge.kernels.common.convert import NUMPY_DTYPES
from pymerge.kernels.gram import spec as gram
from pymerge.ops import Gram, Lines, WeightedSum

REFERENCE = ReferenceOps()
#: Rows and columns: single ones, around the edges of lanes and blocks, several to a block and to a tile, one in
#: several tiles; more columns than there are groups of rows for.
SHAPES = ((1, 1), (1, 777), (777, 1), (5, 31), (3, 32), (33, 33), (2, 1023), (3, BLOCK), (2, 2 * BLOCK + 1), (40, 129))
LONG_SHAPES = ((3, TILE - 1), (2, TILE + 5), (1, 2 * TILE + 3), (TILE // 64 + 1, 65), (2, 1 << 18))


def compute_of(dtype: str) -> Any:
    return BY_NAME["float64" if dtype == "float64" else "float32"]


def cuts(shape: tuple[int, int]) -> tuple[Lines, Lines]:
    """The rows and the columns of a matrix."""
    return Lines(shape[0], shape[1]), Lines(shape[1], shape[0], strided=True)


def check(ops: Ops, dtype: str, shape: tuple[int, int], special: bool) -> None:
    length = shape[0] * shape[1]
    operands = [cases.unaligned(operand) for operand in cases.make(dtype, length, 2, special=special)]
    compute = compute_of(dtype)
    for lines in cuts(shape):
        for request in (Gram((1, 2), None, lines), Gram((1, 2), 0, lines), Gram((0, 1, 2), None, lines)):
            if not cases.is_chosen(request, dtype, special):
                continue
            answers = [np.asarray(each.measure(request, operands, compute)) for each in (ops, REFERENCE)]
            assert np.array_equal(*answers, equal_nan=True), (shape, request)
        coefficients = array("d", np.random.default_rng(0).standard_normal(2 * lines.count).tolist())
        for base in (None, 0):
            combine = WeightedSum((1, 2), coefficients, base, lines)
            for out_dtype in ("bfloat16", dtype):
                if not cases.is_chosen(base, lines, out_dtype, dtype, special):
                    continue
                outs = [cases.guarded(length, NUMPY_DTYPES[out_dtype]) for _ in range(2)]
                for each, (_, inner) in zip((ops, REFERENCE), outs, strict=True):
                    each.combine(combine, operands, compute, inner)
                assert outs[0][1].tobytes() == outs[1][1].tobytes(), (shape, lines, base, out_dtype)
                assert cases.guards_untouched(outs[0][0])


@pytest.mark.parametrize("special", [False, True], ids=["ordinary", "special"])
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_every_backend(ops: Ops, dtype: str, special: bool) -> None:
    for shape in SHAPES:
        check(ops, dtype, shape, special)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("shape", LONG_SHAPES)
def test_lines_across_tiles(dtype: str, shape: tuple[int, int]) -> None:
    check(CpuOps(2), dtype, shape, special=False)


def test_every_thread_count(threads: int) -> None:
    shape = (1500, 531)
    operands = cases.make("bfloat16", shape[0] * shape[1], 2)
    for lines in cuts(shape):
        request = Gram((1, 2), 0, lines)
        one, many = (ops.measure(request, operands, BY_NAME["float32"]) for ops in (CpuOps(1), CpuOps(threads)))
        assert one == many


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_the_sums_are_within_their_tolerance(dtype: str) -> None:
    shape = (37, 2100)
    operands = cases.make(dtype, shape[0] * shape[1], 2)
    matrices = [operand.astype(np.float64).reshape(shape) for operand in operands]
    for lines, axis in zip(cuts(shape), (1, 0), strict=True):
        got = np.asarray(CpuOps().measure(Gram((0, 1, 2), None, lines), operands, compute_of(dtype)))
        pairs = [(i, j) for i in range(3) for j in range(i, 3)]
        for column, (i, j) in zip(got.reshape(-1, len(pairs)).T, pairs, strict=True):
            scale = np.linalg.norm(matrices[i], axis=axis) * np.linalg.norm(matrices[j], axis=axis)
            assert (np.abs(column - (matrices[i] * matrices[j]).sum(axis)) <= gram.TOLERANCE * scale).all()
