"""What Python callers may give: numbers of any library, and nothing that would be taken for something else."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import toys

import pymerge
from pymerge.errors import DTypeError, RecipeError

ARRAYS = [np.arange(6, dtype=np.float32), np.ones(6, np.float32)]


def merged(**options: Any) -> list[float]:
    options = {"parameters": {"weight": 0.5}, **options}
    made = pymerge.merge_tensors("linear", ARRAYS, **options)
    return [float(value) for value in made]


@pytest.mark.parametrize(
    "weight",
    [
        np.float32(0.5),
        np.float64(0.5),
        np.array(0.5),
        Fraction(1, 2),
        [0.5, np.float16(0.5)],
        np.array([0.5, 0.5]),
        (Fraction(1, 2), 0.5),
    ],
    ids=str,
)
def test_a_number_of_any_library_is_one(weight: Any) -> None:
    assert merged(parameters={"weight": weight}) == merged()


def test_torchs_numbers_too() -> None:
    torch = pytest.importorskip("torch", reason="the test extra has it")
    for weight in (torch.tensor(0.5), torch.tensor([0.5, 0.5]), [torch.tensor(0.5), 0.5]):
        assert merged(parameters={"weight": weight}) == merged()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"parameters": {"weight": {0: 0.5, 1: 0.4}}}, "weight is a dict; give one value, or a list with one each"),
        ({"parameters": {"weight": {0.5, 0.4}}}, "weight is a set"),
        ({"parameters": {"weight": [0.5, None]}}, "weight = None is neither a number nor a text"),
        ({"parameters": {"weight": [0.5, [0.5]]}}, r"weight = \[0.5\] is neither"),
        ({"parameters": {"weight": [0.5]}}, "weight has 1 values for 2 tensors"),
        ({"threads": 0}, "threads = 0 must be at least 1"),
        ({"threads": -1}, "threads = -1 must be at least 1"),
        ({"seed": "x"}, "seed = 'x' must be a whole number"),
        ({"seed": None}, "seed = None must be a whole number"),
        ({"seed": 0.5}, "seed = 0.5 must be a whole number"),
    ],
)
def test_what_is_no_value_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        merged(**options)
    given = {"parameters": {"weight": 0.5}, **options}
    with pytest.raises(RecipeError, match=said):
        pymerge.merge_state_dicts("linear", [{"x": array} for array in ARRAYS], **given)


def test_a_recipe_from_python_may_hold_numpys_numbers_and_not_itself(here: Any) -> None:
    toys.write_llama(here / "a")
    recipe: dict[str, Any] = {
        "merge_method": "linear",
        "models": [{"model": "a", "parameters": {"weight": np.float64(0.5)}}],
        "parameters": {"normalize": np.bool_(True)},
    }
    report = pymerge.merge(recipe, "out", seed=np.int64(3))
    assert report.tensors > 0
    with pytest.raises(RecipeError, match="seed = 'x' must be a whole number"):
        pymerge.plan(recipe, seed="x")
    recipe["models"].append(recipe)
    with pytest.raises(RecipeError, match="more than 100 deep"):
        pymerge.plan(recipe)


@pytest.mark.parametrize("density", [0, 0.5, 1])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rule": "nothing"}, 'unknown rule "nothing"; it is magnitude, random or ranked'),
        ({"rule": "ranked", "epsilon": float("nan")}, r"epsilon = nan must be in \[0, 1\]"),
        ({"rule": "ranked", "epsilon": -0.1}, r"epsilon = -0.1 must be in \[0, 1\]"),
        ({"rule": "random", "seed": 1.5}, "seed = 1.5 must be a whole number"),
    ],
)
def test_a_mask_checks_what_it_is_given_whatever_the_density(
    options: dict[str, Any], said: str, density: float
) -> None:
    with pytest.raises(RecipeError, match=said):
        pymerge.mask(ARRAYS[0], density=density, **options)


def test_tensors_of_torch_that_are_no_arrays_are_refused_by_kind() -> None:
    torch = pytest.importorskip("torch", reason="the test extra has it")
    plain = torch.ones(4, 4)
    for tensor, said in [
        (plain.to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (plain.to_sparse(), "sparse_coo"),
    ]:
        with pytest.raises(DTypeError, match=said):
            pymerge.merge_tensors("linear", [tensor, tensor], parameters={"weight": 1})
    # Marks on a view of a tensor are worked out.
    negative = torch._neg_view(plain)
    assert pymerge.merge_tensors("linear", [negative, negative], parameters={"weight": 1}).tolist() == [[-1.0] * 4] * 4
