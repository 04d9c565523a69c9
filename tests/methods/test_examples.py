"""Worked examples: known answers of each method, on numbers small enough to check by hand."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import pymerge
from pymerge.errors import DTypeError, RecipeError, ShapeError

BASE = [1, 2, 3, 4]
ONE = [1.5, 2, 2, 5]  # task vector [.5, 0, -1, 1]
TWO = [0.8, 2.4, 3.6, 4.2]  # task vector [-.2, .4, .6, .2]
LONG_BASE = [1, 2, 3, 4, 1, 2, 3, 4]
LONG_ONE = [1.5, 2.5, 2, 5, 1, 2.2, 3.3, 4.4]
LONG_TWO = [0.8, 2.4, 3.6, 4.2, 1.3, 1.8, 3.1, 3.9]
HALF: dict[str, Any] = {"weight": 0.5}
FULL: dict[str, Any] = {"weight": 1}

# method, tensors, base, parameters, result
EXAMPLES: list[tuple[str, list[Any], list[Any] | None, dict[str, Any], list[Any]]] = [
    ("linear", [ONE, TWO], None, {"weight": [0.6, 0.4]}, [1.22, 2.16, 2.64, 4.68]),
    ("linear", [ONE, TWO], None, {"weight": [3, 1]}, [1.325, 2.1, 2.4, 4.8]),
    ("linear", [ONE, TWO], None, {"weight": [3, 1], "normalize": False}, [5.3, 8.4, 9.6, 19.2]),
    ("linear", [ONE, TWO], None, {"weight": [1, 0]}, ONE),
    ("slerp", [[1, 1]], [1, 0], {"t": 0.25}, [1.0615944, 0.2758994]),
    ("slerp", [[0, 2]], [1, 0], {"t": 0.5}, [0.7071068, 1.4142135]),
    ("slerp", [[1, 1]], [0, 0], {"t": 0.5}, [0.7071068, 0.7071068]),
    ("slerp", [[-1, 0]], [1, 0], {"t": 0.25}, [0.5, 0]),
    ("slerp", [[3, 4]], [1, 0], {"t": 0}, [1, 0]),
    ("slerp", [[3, 4]], [1, 0], {"t": 1}, [3, 4]),
    ("nuslerp", [[1, 0], [1, 1]], None, {"weight": [3, 1]}, [1.0615944, 0.2758994]),
    ("nuslerp", [[2, 1], [1, 3]], [1, 1], HALF, [1.70711, 2.41421]),
    ("nuslerp", [[0, 0], [2, 4]], None, HALF, [1.4142135, 2.828427]),
    ("nuslerp", [[1, 0], [0, 2]], None, {"weight": [1, -1]}, [0.7071068, 1.4142135]),
    # Opposite directions have no arc between them; the straight line passes through 0.
    ("nuslerp", [[1, 2], [-1, -2]], None, {"weight": [0.75, 0.25]}, [0.5, 1]),
    ("nuslerp", [[1, 2], [3, 6]], None, {"weight": [0.75, 0.25]}, [1.5, 3]),
    ("multislerp", [[1, 0, 0], [0, 2, 0], [0, 0, 3]], None, {"weight": [1, 2, 1]}, [0.8164966, 1.6329932, 0.8164966]),
    ("multislerp", [[2, 1], [1, 3]], [1, 1], FULL, [2.06066, 2.06066]),
    ("multislerp", [ONE], BASE, FULL, ONE),
    ("multislerp", [[1, 0], [-1, 0]], None, {"weight": [3, 1]}, [1, 0]),
    ("multislerp", [[1, 0], [-1, 0]], [0, 0], FULL, [0, 0]),
    ("multislerp", [BASE, BASE, BASE], BASE, FULL, BASE),
    ("karcher", [[1, 0, 0], [0, 2, 0], [0, 0, 3]], None, {}, [1.1547005, 1.1547005, 1.1547005]),
    ("karcher", [[1, 0, 0], [0.8, 0.6, 0], [0, 0, 3]], None, {}, [1.3589855, 0.4529952, 0.8518987]),
    ("karcher", [[1, 0], [-1, 0]], None, {}, [1, 0]),
    ("karcher", [[1, 0], [0, 0]], None, {}, [0.5, 0]),
    ("karcher", [[0, 0], [0, 0]], None, {}, [0, 0]),
    ("karcher", [[3, 4]], None, {}, [3, 4]),
    ("passthrough", [ONE], None, {}, ONE),
    ("passthrough", [ONE], None, {"scale": 0.5}, [0.75, 1, 1, 2.5]),
    ("passthrough", [ONE], None, {"scale": 0}, [0, 0, 0, 0]),
    ("task_arithmetic", [ONE, TWO], BASE, HALF, [1.15, 2.2, 2.8, 4.6]),
    ("task_arithmetic", [ONE, TWO], BASE, {**FULL, "normalize": True, "lambda": 0.5}, [1.075, 2.1, 2.9, 4.3]),
    ("task_arithmetic", [ONE, TWO], BASE, {"weight": [1, -1], "normalize": True}, [1.7, 1.6, 1.4, 4.8]),
    ("ties", [ONE, TWO], BASE, {**HALF, "density": 0.5}, [1, 2.4, 2, 5]),
    ("ties", [ONE, TWO], BASE, FULL, [1.5, 2.4, 2, 4.6]),
    ("ties", [ONE, TWO], BASE, {"weight": [1, 0.5]}, [1.5, 2.4, 2, 4.7333333]),
    ("ties", [ONE, TWO], BASE, {"weight": [1, 0.5], "normalize": False}, [1.5, 2.2, 2, 5.1]),
    ("ties", [ONE, TWO], BASE, {**HALF, "density": 0.5, "rescale": True}, [1, 2.56, 1.75, 5.25]),
    ("ties", [ONE, TWO], BASE, {"weight": [1, -1]}, [1.7, 2.4, 1.4, 5.0]),
    ("ties", [[2, 0], [0, 2]], [1, 1], FULL, [2, 2]),
    ("ties", [ONE, TWO], BASE, {**FULL, "density": 0}, BASE),
    ("dare_linear", [ONE, TWO], BASE, HALF, [1.15, 2.2, 2.8, 4.6]),
    ("dare_linear", [ONE, TWO], BASE, {**FULL, "density": 0}, BASE),
    ("dare_ties", [ONE, TWO], BASE, HALF, [1.25, 2.2, 2.5, 4.6]),
    ("della", [ONE, TWO], BASE, HALF, [1.5, 2.4, 2, 4.6]),
    ("della", [ONE, TWO], BASE, {**FULL, "density": 0}, BASE),
    ("della_linear", [ONE, TWO], BASE, HALF, [1.15, 2.2, 2.8, 4.6]),
    ("breadcrumbs", [ONE, TWO], BASE, HALF, [1.15, 2.2, 2.8, 4.6]),
    (
        "breadcrumbs",
        [LONG_ONE, LONG_TWO],
        LONG_BASE,
        {**FULL, "density": 0.5, "gamma": 0.125},
        # Of the equal magnitudes at indices 2 and 3 the first is the larger, and dropped as the top one.
        [1.3, 2.9, 3, 5, 1.3, 1.8, 3, 4.4],
    ),
    ("breadcrumbs", [ONE, TWO], BASE, {**HALF, "density": 0.5, "gamma": 0.01}, [1, 2.2, 2.8, 4.5]),
    ("breadcrumbs_ties", [ONE, TWO], BASE, HALF, [1.25, 2.2, 2.5, 4.6]),
    (
        "breadcrumbs_ties",
        [LONG_ONE, LONG_TWO],
        LONG_BASE,
        {**FULL, "density": 0.5, "gamma": 0.125},
        [1.5, 2.9, 3, 5, 1.3, 1.8, 3, 4.4],
    ),
    ("ram", [[2, 2, 3, 4], [3, 3, 3, 4]], BASE, {}, [2.5, 3, 3, 4]),
    ("ram", [[2, 2, 3, 4], [3, 3, 3, 4]], BASE, {"epsilon": 1}, [3, 2, 3, 4]),
    ("ramplus_tl", [[2, 2, 3, 4], [3, 3, 3, 4]], BASE, {}, [2.5, 3.02, 3, 4]),
    ("magmax", [ONE, TWO], BASE, {}, [1.5, 2.4, 2, 5]),
    ("magmax", [ONE, TWO], BASE, {"weight": [0.5, 1], "lambda": 2}, [1.5, 2.8, 4.2, 5]),
    # Of equal magnitudes the first model's.
    ("magmax", [[2, 1], [0, 3]], [1, 2], {}, [2, 1]),
    ("magmax", [[2, 1]], [1, 2], {"weight": 0}, [1, 2]),
    ("magmax", [], [1, 2], {}, [1, 2]),
    ("emr", [ONE, TWO], BASE, {}, [1.5, 2.4, 2, 5]),
    ("emr", [ONE, TWO, TWO], BASE, {}, [1.5, 2.4, 3.6, 5]),
    ("emr", [ONE, TWO, TWO], BASE, {"lambda": 0.5}, [1.25, 2.2, 3.3, 4.5]),
    # Where votes balance, + wins.
    ("emr", [[0, 1], [2, 3]], [1, 2], {}, [2, 3]),
    ("sce", [ONE, TWO], BASE, {}, [1.5, 2.4, 2, 4.8315787]),
    ("sce", [ONE, TWO], BASE, {"select_topk": 0.5}, [1, 2, 2, 4.8666668]),
    ("sce", [ONE, TWO], BASE, {"select_topk": 0}, BASE),
    # Where models agree there is nothing to select.
    ("sce", [ONE, ONE], BASE, {"select_topk": 0.5}, BASE),
    ("sce", [ONE, ONE], BASE, {}, ONE),
    ("sce", [ONE], BASE, {}, ONE),
    ("sce", [], BASE, {}, BASE),
    # Task vectors of everyday size are weighted like large ones: nothing absolute is compared with.
    ("sce", [[1e-4, 0], [3e-4, 1e-4]], [0, 0], {}, [(1 * 1 + 10 * 3) / 11 * 1e-4, 1e-4]),
    ("ramplus_tl", [[2, 2, 3, 4], [3, 3, 3, 4]], BASE, {"r": 1, "alpha": 1}, [2.5, 4, 3, 4]),
    # Nothing that one of them changed alone.
    ("ramplus_tl", [[2, 2, 3, 4], [3, 4, 3, 4]], BASE, {"epsilon": 0}, [2.5, 4.04, 3, 4]),
    ("ties", [[3], [-1], [-1]], [0], FULL, [3]),
    ("ties", [[3], [-1], [-1]], [0], {**FULL, "consensus": "count"}, [-1]),
    ("ties", [[1], [-2]], [0], {"weight": [3, 1]}, [1]),
    ("ties", [[1], [-2]], [0], {"weight": [3, 1], "election": "unweighted"}, [-2]),
    # Who has no weight votes where votes have none.
    ("ties", [[-3], [1]], [0], {"weight": [0, 1]}, [1]),
    ("ties", [[-3], [1]], [0], {"weight": [0, 1], "election": "unweighted"}, [0]),
    ("nearswap", [TWO], BASE, {"t": 0.3}, [0.8, 2.3, 3.3, 4.2]),
    ("nearswap", [TWO], BASE, {"t": 0}, BASE),
    ("nearswap", [[1e-7, 2]], [0, 1], {"t": 5e-7}, [5e-8, 1 + 5e-7]),
    ("arcee_fusion", [BASE], BASE, {}, BASE),
    # Scores [[.0026, 0, .013, 0], [0, .2219, 0, .2219]]: in order numbers 1, 3 and 5 make the threshold .0195.
    ("arcee_fusion", [[[0.1, 1, 2.5, 3], [1, 2, 1, 0]]], [[0, 1, 2, 3], [1] * 4], {}, [[0, 1, 2, 3], [1, 2, 1, 0]]),
    # Rows of one element are the same distribution: all scores are 0, and so is the threshold.
    ("arcee_fusion", [[[1], [2], [3]]], [[0], [0], [0]], {}, [[1], [2], [3]]),
    ("model_stock", [ONE, TWO], BASE, {}, [0.7733779, 1.6978369, 3.3021631, 3.0935116]),
    ("model_stock", [[1, 0], [0, 1]], [0, 0], {}, [0, 0]),
    (
        "model_stock",
        [[[1, 0], [1, 1]], [[1, 1], [0, 1]]],
        [[0, 0], [0, 0]],
        {"filter_wise": True},
        [[0.8284271, 0.4142136], [0.4142136, 0.8284271]],
    ),
    (
        "nuslerp",
        [[[1, 0], [0, 1]], [[0, 1], [1, 1]]],
        None,
        {**HALF, "nuslerp_flatten": False},
        [[0.7071068, 0.7071068], [0.5411961, 1.0823922]],
    ),
    (
        "nuslerp",
        [[[1, 0], [0, 1]], [[0, 1], [1, 1]]],
        None,
        {**HALF, "nuslerp_flatten": False, "nuslerp_row_wise": True},
        [[0.7071068, 0.5411961], [0.7071068, 1.0823922]],
    ),
]


def name_of(example: tuple[Any, ...]) -> str:
    return f"{example[0]}-{example[3]}"


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_worked_example(example: tuple[Any, ...], backend: str) -> None:
    method, tensors, base, parameters, expected = example
    arrays = [np.array(tensor, np.float32) for tensor in tensors]
    origin = None if base is None else np.array(base, np.float32)
    merged = pymerge.merge_tensors(method, arrays, base=origin, parameters=parameters, backend=backend)
    np.testing.assert_allclose(merged, np.array(expected, np.float32), rtol=2e-6, atol=2e-6)


def test_breadcrumbs_ties_go_to_the_lowest_index() -> None:
    """|D| = [.5, .5, 1, 1, ...]: of two equal magnitudes the first counts as the larger."""
    base, tuned = np.zeros(4, np.float32), np.array([0.5, 0.5, -1, 1], np.float32)
    merged = pymerge.merge_tensors(
        "breadcrumbs", [tuned], base=base, parameters={"weight": 1, "density": 0.5, "gamma": 0.25}
    )
    assert merged.tolist() == [0.5, 0, 0, 1]


class TestRescale:
    VALUES = np.array([1, -2, 3, -4, 5], np.float32)

    def merge(self, rescale: Any, method: str = "ties", density: float = 0.5) -> list[float]:
        parameters = {"weight": 1, "density": density, "rescale": rescale}
        zero = np.zeros(5, np.float32)
        return pymerge.merge_tensors(method, [self.VALUES], base=zero, parameters=parameters).tolist()

    def test_none(self) -> None:
        assert self.merge(False) == [0, 0, 0, -4, 5]

    @pytest.mark.parametrize("spelling", [True, "l1"])
    def test_l1_keeps_the_norm(self, spelling: Any) -> None:
        np.testing.assert_allclose(self.merge(spelling), [0, 0, 0, -20 / 3, 25 / 3], rtol=1e-6)

    def test_l2_and_linf_keep_theirs(self) -> None:
        np.testing.assert_allclose(self.merge("l2"), np.array([0, 0, 0, -4, 5]) * np.sqrt(55 / 41), rtol=1e-6)
        assert self.merge("linf") == [0, 0, 0, -4, 5]

    @pytest.mark.parametrize(("rescale", "order"), [("l1", 1), ("l2", 2), ("linf", np.inf)])
    def test_a_random_mask_keeps_the_norm(self, rescale: str, order: float) -> None:
        tuned = np.random.default_rng(1).standard_normal(5000).astype(np.float32)
        parameters = {"weight": 1, "density": 0.3, "rescale": rescale}
        merged = pymerge.merge_tensors("dare_linear", [tuned], base=np.zeros_like(tuned), parameters=parameters)
        assert 0.6 < np.mean(merged == 0) < 0.8
        np.testing.assert_allclose(np.linalg.norm(merged, order), np.linalg.norm(tuned, order), rtol=1e-5)

    def test_inverse_divides_by_the_density(self) -> None:
        np.testing.assert_allclose(self.merge("inverse"), [0, 0, 0, -8, 10], rtol=1e-6)

    def test_inverse_is_the_paper_of_dare(self) -> None:
        """Kept elements are exactly 1/density times as large, whatever was drawn."""
        tuned = np.ones(10_000, np.float32)
        parameters = {"weight": 1, "density": 0.25, "rescale": "inverse"}
        merged = pymerge.merge_tensors("dare_linear", [tuned], base=np.zeros_like(tuned), parameters=parameters)
        assert set(np.unique(merged)) == {0.0, 4.0}

    def test_a_density_of_one_changes_nothing(self) -> None:
        assert self.merge(True, "dare_linear", 1.0) == self.VALUES.tolist()


class TestRandomMethods:
    def merge(self, **changes: Any) -> Any:
        rng = np.random.default_rng(0)
        base = rng.standard_normal(5000, dtype=np.float32)
        tuned = [base + rng.standard_normal(5000, dtype=np.float32) for _ in range(2)]
        options = {"parameters": {"weight": 0.5, "density": 0.5}, **changes}
        return pymerge.merge_tensors("dare_ties", tuned, base=base, **options)

    def test_same_seed_same_bytes(self) -> None:
        assert self.merge(seed=3).tobytes() == self.merge(seed=3, threads=1).tobytes()

    @pytest.mark.parametrize("other", [{"seed": 4}, {"name": "other"}])
    def test_seed_and_name_change_the_draws(self, other: dict[str, Any]) -> None:
        assert self.merge(seed=3).tobytes() != self.merge(**{"seed": 3, **other}).tobytes()

    def test_sources_draw_independently(self) -> None:
        delta = np.ones(100_000, np.float32)
        masks = [pymerge.mask(delta, density=0.5, rule="random", place=place) for place in (0, 1)]
        assert abs(np.corrcoef(*masks)[0, 1]) < 4 / np.sqrt(delta.size)


class TestMask:
    def test_magnitude_keeps_exactly_k(self) -> None:
        delta = np.random.default_rng(0).standard_normal((37, 11))
        for density in (0.0, 0.001, 0.3, 1.0):
            expected = 0 if density == 0 else max(1, int(density * delta.size))
            made = pymerge.mask(delta, density=density)
            assert made.dtype == np.int8
            assert made.shape == delta.shape
            assert made.sum() == expected

    def test_torch_in_torch_out(self) -> None:
        torch = pytest.importorskip("torch")
        made = pymerge.mask(torch.tensor([1.0, -3.0, 2.0]), density=0.5)
        assert made.dtype == torch.int8
        assert made.tolist() == [0, 1, 0]

    def test_ranked_masks_favor_what_is_large_along_the_last_dimension(self) -> None:
        """Every row is the same numbers, scaled: where a row's largest are is where most is kept."""
        rows = np.arange(1, 101, dtype=np.float32) * np.exp2(np.arange(-50, 50, dtype=np.float32))[:, None]
        made = pymerge.mask(rows.reshape(10, 10, 100), density=0.5, epsilon=0.4, rule="ranked").reshape(100, 100)
        assert abs(made[:, :20].mean() - 0.18) < 0.04
        assert abs(made[:, 80:].mean() - 0.82) < 0.04
        assert np.ptp(made.mean(axis=1)) < 0.3

    def test_bad_density_is_refused(self) -> None:
        with pytest.raises(RecipeError, match=r"density = 1\.5 must be in \[0, 1\]"):
            pymerge.mask(np.ones(3, np.float32), density=1.5)
        with pytest.raises(RecipeError, match=r"mask: density = 0\.9 .*set epsilon below 0\.1"):
            pymerge.mask(np.ones(3, np.float32), density=0.9, rule="ranked")


class TestMergeTensors:
    def test_torch_bfloat16(self) -> None:
        torch = pytest.importorskip("torch")
        tensors = [torch.tensor([[1.0, 3.0]], dtype=torch.bfloat16), torch.tensor([[1.01, 5.0]], dtype=torch.bfloat16)]
        merged = pymerge.merge_tensors("linear", tensors, parameters={"weight": [0.1, 0.2]})
        assert merged.dtype == torch.bfloat16
        assert merged.shape == (1, 2)
        assert merged.tolist() == [[1.0078125, 4.34375]]

    def test_mixed_dtypes_are_promoted(self) -> None:
        tensors = [np.ones(3, ml_dtypes.bfloat16), np.ones(3, np.float16)]
        assert pymerge.merge_tensors("linear", tensors, parameters={"weight": 1}).dtype == np.float32

    def test_float64_is_computed_in_float64(self) -> None:
        tiny = 2.0**-40
        merged = pymerge.merge_tensors("passthrough", [np.array([1 + tiny])], parameters={"scale": 3})
        assert merged.tolist() == [3 * (1 + tiny)]

    def test_scalars_and_empty_tensors(self) -> None:
        assert pymerge.merge_tensors("linear", [np.float32(2), np.float32(4)], parameters={"weight": 1}) == 3
        empty = np.empty((0, 3), np.float32)
        for method, base in (("linear", None), ("slerp", empty), ("ties", empty)):
            parameters = {"t": 0.5} if method == "slerp" else {"weight": 1}
            tensors = [empty] if method == "slerp" else [empty, empty]
            assert pymerge.merge_tensors(method, tensors, base=base, parameters=parameters).shape == (0, 3)

    @pytest.mark.parametrize(
        ("method", "count", "base", "parameters", "message"),
        [
            ("tise", 1, False, {}, 'unknown method "tise"; did you mean "ties"'),
            ("ties", 1, False, {"weight": 1}, "ties needs a base; give it as base="),
            ("linear", 2, True, {"weight": 1}, "linear takes no base"),
            (
                "slerp",
                2,
                True,
                {"t": 0.5},
                "slerp takes exactly 1 tensors besides the base, not 2; merge two of them first",
            ),
            ("ties", 1, True, {}, "ties needs weight"),
            ("ties", 1, True, {"weight": 1, "densty": 1}, 'does not read densty; did you mean "density"'),
            ("ties", 1, True, {"weight": 1, "density": 1.4}, r"density = 1\.4 must be in \[0, 1\]"),
            ("ties", 2, True, {"weight": [1]}, "weight has 1 values for 2 tensors"),
            (
                "della",
                2,
                True,
                {"weight": 1, "density": [0.5, 0.9]},
                r"density = 0.9 and epsilon = 0.15 of model 2 .* from 0.75 to 1.05.* set epsilon below 0.1",
            ),
            ("della_linear", 1, True, {"weight": 1, "density": 0.1}, r"from -0.05 to 0.25.* set epsilon below 0.1"),
            ("linear", 2, False, {"weight": [1, -1]}, "sum to 0"),
            ("multislerp", 2, False, {"weight": [1, -1]}, "sum to 0.* normalize_weights: false"),
            ("nuslerp", 3, True, {"weight": 1}, "nuslerp takes exactly 2 tensors .* not 3; merge two of them first"),
            ("karcher", 2, True, {}, "karcher takes no base; list it"),
            ("karcher", 2, False, {"max_iter": 1.5}, "max_iter = 1.5 must be a whole number"),
        ],
    )
    def test_mistakes_are_named(
        self, method: str, count: int, base: bool, parameters: dict[str, Any], message: str
    ) -> None:
        tensor = np.ones(3, np.float32)
        with pytest.raises(RecipeError, match=message):
            pymerge.merge_tensors(method, [tensor] * count, base=tensor if base else None, parameters=parameters)

    def test_shapes_must_agree(self) -> None:
        with pytest.raises(ShapeError, match=r"\[3\] and \[4\]"):
            pymerge.merge_tensors("linear", [np.ones(3), np.ones(4)], parameters={"weight": 1})

    def test_integers_cannot_be_merged(self) -> None:
        with pytest.raises(DTypeError, match="int64"):
            pymerge.merge_tensors("linear", [np.ones(3, np.int64)] * 2, parameters={"weight": 1})
