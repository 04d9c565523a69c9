"""Methods whose results lie in the span of their inputs: against formulas on vectors, their laws, their passes."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pymerge
from pymerge.backends.cpu import CpuOps
from pymerge.errors import RecipeError
from pymerge.execute import memory
from pymerge.methods import get_method

SPAN = ("slerp", "nuslerp", "multislerp", "karcher", "model_stock")
seeds = st.integers(0, 2**32)


def vectors(seed: int, count: int, size: int = 257, spread: float = 1.0) -> list[Any]:
    """Random vectors of different lengths around a common one, float64."""
    random = np.random.default_rng(seed)
    origin = random.standard_normal(size)
    return [(origin + spread * random.standard_normal(size)) * random.uniform(0.5, 2) for _ in range(count)]


def multislerp(models: list[Any], weights: Any, eps: float) -> Any:
    """The published formula, tangent step and all."""
    weights = np.asarray(weights) / np.sum(weights)
    norms = np.array([np.linalg.norm(model) for model in models])
    units = [model / (norm + eps) for model, norm in zip(models, norms, strict=True)]
    mean = sum(weight * unit for weight, unit in zip(weights, units, strict=True))
    mu = mean / np.linalg.norm(mean)
    tangent = sum(weight * (unit - (unit @ mu) * mu) for weight, unit in zip(weights, units, strict=True))
    nu = np.linalg.norm(tangent) + eps
    return (mu * np.cos(nu) + tangent * np.sin(nu) / nu) * (weights @ norms)


def karcher(models: list[Any], steps: int) -> Any:
    """The iteration on whole vectors."""
    norms = [np.linalg.norm(model) for model in models]
    units = [model / norm for model, norm in zip(models, norms, strict=True)]
    u = sum(units) / np.linalg.norm(sum(units))
    for _ in range(steps):
        step = np.zeros_like(u)
        for unit in units:
            angle = np.arccos(np.clip(u @ unit, -1, 1))
            step += angle / np.sin(angle) * (unit - (u @ unit) * u) / len(units)
        reach = np.linalg.norm(step)
        u = u * np.cos(reach) + step * np.sin(reach) / reach
        u /= np.linalg.norm(u)
    return np.mean(norms) * u


@settings(max_examples=30, deadline=None)
@given(seed=seeds, count=st.integers(2, 5))
def test_multislerp_is_the_published_formula(seed: int, count: int) -> None:
    models = vectors(seed, count)
    weights = np.random.default_rng(seed).uniform(0.1, 1, count).tolist()
    merged = pymerge.merge_tensors("multislerp", models, parameters={"weight": weights, "eps": 1e-3})
    np.testing.assert_allclose(merged, multislerp(models, weights, 1e-3), rtol=1e-9, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, count=st.integers(2, 5), steps=st.integers(1, 12))
def test_karcher_is_the_iteration_on_vectors(seed: int, count: int, steps: int) -> None:
    models = vectors(seed, count)
    merged = pymerge.merge_tensors("karcher", models, parameters={"max_iter": steps, "tol": 0})
    np.testing.assert_allclose(merged, karcher(models, steps), rtol=1e-7, atol=1e-7)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, count=st.integers(2, 4), factor=st.sampled_from([2.0**-9, 2.0, 64.0]))
def test_means_do_not_depend_on_order_and_scale_with_their_inputs(seed: int, count: int, factor: float) -> None:
    models = vectors(seed, count)
    for method, parameters in (("multislerp", {"weight": 1, "eps": 0}), ("karcher", {"max_iter": 9, "tol": 0})):
        merged = pymerge.merge_tensors(method, models, parameters=parameters)
        turned = pymerge.merge_tensors(method, models[::-1], parameters=parameters)
        np.testing.assert_allclose(turned, merged, rtol=1e-9, atol=1e-9)
        larger = pymerge.merge_tensors(method, [factor * model for model in models], parameters=parameters)
        np.testing.assert_allclose(larger, factor * merged, rtol=1e-7, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, t=st.floats(0, 1))
def test_nuslerp_is_slerp_and_its_ends_are_the_models(seed: int, t: float) -> None:
    one, two = vectors(seed, 2)
    merged = pymerge.merge_tensors("nuslerp", [one, two], parameters={"weight": [1 - t, t]})
    np.testing.assert_allclose(merged, pymerge.merge_tensors("slerp", [two], base=one, parameters={"t": t}), rtol=1e-9)
    for weights, expected in (([1, 0], one), ([0, 1], two)):
        for base in (None, two + 1):
            end = pymerge.merge_tensors("nuslerp", [one, two], base=base, parameters={"weight": weights})
            assert end.tobytes() == expected.tobytes()


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_three_equal_models_are_their_mean(seed: int) -> None:
    (model,) = vectors(seed, 1)
    for method in ("nuslerp", "multislerp", "karcher"):
        models = [model] * (2 if method == "nuslerp" else 3)
        parameters = {} if method == "karcher" else {"weight": 1}
        np.testing.assert_allclose(pymerge.merge_tensors(method, models, parameters=parameters), model, rtol=1e-7)


@pytest.mark.parametrize("method", ["nuslerp", "multislerp", "model_stock"])
def test_small_task_vectors_keep_their_digits(method: str) -> None:
    """Next to a base a million times as large, what is added is right to the base's last place."""
    random = np.random.default_rng(0)
    base = random.standard_normal(4096).astype(np.float32)
    tuned = [(base + random.standard_normal(4096) * 1e-4).astype(np.float32) for _ in range(2)]
    parameters = {} if method == "model_stock" else {"weight": 1}
    merged = pymerge.merge_tensors(method, tuned, base=base, parameters=parameters)
    exact = pymerge.merge_tensors(
        method, [t.astype(np.float64) for t in tuned], base=base.astype(np.float64), parameters=parameters
    )
    assert (np.abs(merged - exact) <= np.spacing(np.abs(base))).all()


class _Counting(CpuOps):
    """The CPU backend, counting what it reads."""

    def __init__(self, threads: int = 1) -> None:
        super().__init__(threads)
        self.reads: list[int] = []

    def measure(self, request: Any, operands: Any, compute: Any) -> object:
        self.reads.append(len(request.sources) + (request.base is not None))
        return super().measure(request, operands, compute)

    def combine(self, request: Any, operands: Any, compute: Any, out: Any) -> None:
        self.reads.append(len(request.sources) + (getattr(request, "base", None) is not None))
        super().combine(request, operands, compute, out)


@pytest.mark.parametrize("changes", [{}, {"max_iter": 1000, "tol": 1e-9}], ids=["10", "1000"])
@pytest.mark.parametrize("method", SPAN)
def test_data_is_read_twice(monkeypatch: pytest.MonkeyPatch, method: str, changes: dict[str, Any]) -> None:
    """Two passes over all inputs, however many iterations; see also tests/execute/test_reading.py."""
    ops = _Counting()
    monkeypatch.setattr(memory, "ops_for", lambda *_: ops)
    based = method in ("slerp", "model_stock")
    models = vectors(0, 4)
    models = models[: 1 if method == "slerp" else 2 if method == "nuslerp" else 4]
    read = {parameter.name for parameter in get_method(method).parameters}
    given_values = {"weight": 0.5, "t": 0.3, **changes}
    parameters = {name: value for name, value in given_values.items() if name in read}
    pymerge.merge_tensors(method, models, base=vectors(1, 1)[0] if based else None, parameters=parameters)
    assert ops.reads == [len(models) + based] * 2


def test_directions_that_cancel_out_are_refused() -> None:
    third = 2 * np.pi / 3
    models = [np.array([np.cos(k * third), np.sin(k * third)]) for k in range(3)]
    with pytest.raises(RecipeError, match="multislerp: the directions of tensor cancel out"):
        pymerge.merge_tensors("multislerp", models, parameters={"weight": 1, "eps": 1e-6})


@pytest.mark.parametrize("method", ["nuslerp", "multislerp", "karcher"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_not_hidden(method: str, bad: float) -> None:
    models = [np.ones(5, np.float32), np.array([1, bad, 1, 1, 1], np.float32)]
    parameters = {} if method == "karcher" else {"weight": 1}
    merged = pymerge.merge_tensors(method, models, parameters=parameters)
    assert not np.isfinite(merged[1])


@pytest.mark.parametrize("method", ["nuslerp", "multislerp", "karcher"])
def test_bfloat16_is_the_float32_result_rounded_once(method: str) -> None:
    models = [model.astype(ml_dtypes.bfloat16) for model in vectors(3, 2)]
    parameters = {} if method == "karcher" else {"weight": [0.3, 0.6]}
    wide = pymerge.merge_tensors(method, models, parameters=parameters, dtype="float32")
    narrow = pymerge.merge_tensors(method, models, parameters=parameters)
    assert np.array_equal(narrow, wide.astype(ml_dtypes.bfloat16))
