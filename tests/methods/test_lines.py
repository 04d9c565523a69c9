"""Methods by rows and columns: each vector is merged as if it were a tensor of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import pymerge
from pymerge.errors import RecipeError
from pymerge.methods import _lines, get_method
from pymerge.methods.base import Inputs

SHAPES = [(5, 7), (3, 4, 5), (1, 6), (6, 1), (1, 3, 2), (2, 1, 3), (9,), ()]
ROWS: dict[str, Any] = {"nuslerp_flatten": False}
COLUMNS: dict[str, Any] = {**ROWS, "nuslerp_row_wise": True}


def models(shape: tuple[int, ...], count: int) -> list[Any]:
    random = np.random.default_rng(0)
    return [random.standard_normal(shape) for _ in range(count)]


def one_by_one(method: str, tensors: list[Any], base: Any, parameters: dict[str, Any], swap: bool) -> Any:
    """Swap dims 0 and last if asked, merge vectors of the last dim alone, swap back."""
    turned = [np.atleast_1d(np.asarray(t)) for t in (*tensors, *([] if base is None else [base]))]
    turned = [np.swapaxes(t, 0, -1) if swap else t for t in turned]
    rows = [np.ascontiguousarray(t).reshape(-1, t.shape[-1]) for t in turned]
    merged = np.empty_like(rows[0])
    for row in range(len(merged)):
        vectors = [matrix[row] for matrix in rows]
        origin = None if base is None else vectors.pop()
        merged[row] = pymerge.merge_tensors(method, vectors, base=origin, parameters=parameters)
    shaped = merged.reshape(turned[0].shape)
    return (np.swapaxes(shaped, 0, -1) if swap else shaped).reshape(np.shape(tensors[0]))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("swap", [False, True], ids=["rows", "columns"])
@pytest.mark.parametrize("based", [False, True])
def test_nuslerp_merges_every_vector(shape: tuple[int, ...], swap: bool, based: bool, backend: str) -> None:
    *tensors, base = models(shape, 3)
    origin = base if based else None
    parameters = {"weight": [0.3, 0.6], **(COLUMNS if swap else ROWS)}
    merged = pymerge.merge_tensors("nuslerp", tensors, base=origin, parameters=parameters, backend=backend)
    expected = one_by_one("nuslerp", tensors, origin, {"weight": [0.3, 0.6]}, swap)
    np.testing.assert_allclose(merged, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [2, 3])
def test_model_stock_merges_every_filter(shape: tuple[int, ...], count: int, backend: str) -> None:
    *tensors, base = models(shape, count + 1)
    merged = pymerge.merge_tensors("model_stock", tensors, base=base, parameters={"filter_wise": True}, backend=backend)
    np.testing.assert_allclose(merged, one_by_one("model_stock", tensors, base, {}, False), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
@pytest.mark.parametrize("parameters", [ROWS, COLUMNS])
def test_empty_tensors_stay_empty(shape: tuple[int, ...], parameters: dict[str, Any]) -> None:
    parameters = {"weight": 1, **parameters}
    assert pymerge.merge_tensors("nuslerp", models(shape, 2), parameters=parameters).shape == shape


def test_too_many_vectors_are_refused_with_the_way_out() -> None:
    most = _lines._MOST // 3
    inputs = Inputs(
        name="experts", count=3 * most, base=None, models=(0, 1), shape=(3, most),
        values={"nuslerp_flatten": False, "nuslerp_row_wise": True}, per_model={"weight": (1.0, 1.0)},
    )  # fmt: skip
    program = get_method("nuslerp").program
    next(program(inputs))
    more = replace(inputs, count=3 * (most + 1), shape=(3, most + 1))
    with pytest.raises(RecipeError, match=r"experts .* has 1398102 vectors of 3.* set nuslerp_flatten: true"):
        next(program(more))


def test_too_many_rows_are_refused_with_the_way_out() -> None:
    inputs = Inputs(name="experts", count=2 * _lines._MOST, base=1, models=(0,), shape=(_lines._MOST, 2))
    program = get_method("arcee_fusion").program
    next(program(inputs))
    more = replace(inputs, count=2 * (_lines._MOST + 1), shape=(_lines._MOST + 1, 2))
    with pytest.raises(RecipeError, match=r"experts .* has 4194305 vectors of 2.* exclude"):
        next(program(more))
