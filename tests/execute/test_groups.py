"""Cuts of groups of tensors: what is kept is what a stable sort of all magnitudes together keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from execute import merges
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load

import pymerge
from pymerge.backends.cpu import CpuOps
from pymerge.backends.reference import ReferenceOps
from pymerge.dtypes import BY_NAME
from pymerge.errors import DTypeError
from pymerge.execute.groups import find_group_cuts
from pymerge.ops import Cut, KeyCounts, KeySample, Select
from pymerge.plan.costs import count_costs
from pymerge.plan.values import TensorTask

NAMES = ("embed", "layers.0.a", "layers.0.b", "layers.1.a", "norm")


def keep_largest(parts: Sequence[Any], count: int) -> list[Any]:
    """Masks of the `count` largest magnitudes of all parts together; ties go to the lowest index."""
    order = np.argsort(-np.abs(np.concatenate(parts)), kind="stable")[:count]
    mask = np.zeros(sum(part.size for part in parts), bool)
    mask[order] = True
    return np.split(mask, np.cumsum([part.size for part in parts])[:-1])


def values(random: np.random.Generator, size: int) -> Any:
    """Few distinct magnitudes, so that most cuts fall among ties."""
    return (random.integers(-9, 10, size) * 0.25).astype(np.float32)


def write(folder: Path, dtypes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """(recipe, base, task vector): a base, and a fine-tune that differs from it by few distinct amounts."""
    random = np.random.default_rng(3)
    sizes = {"embed": 3001, "layers.0.a": 700, "layers.0.b": 64, "layers.1.a": 301, "norm": 40}
    base = {name: random.integers(-4, 5, size).astype(dtypes.get(name, np.float32)) for name, size in sizes.items()}
    delta = {name: values(random, size).astype(base[name].dtype) for name, size in sizes.items()}
    # One layer and the embedding moved more than the rest: the scopes differ.
    delta["layers.0.a"] *= 3
    delta["embed"] *= 2
    folders = merges.write_models(folder, [base, {name: base[name] + delta[name] for name in base}])
    recipe = {
        "merge_method": "ties",
        "base_model": str(folders[0]),
        "models": [{"model": str(folders[1])}],
        "parameters": {"weight": 1, "density": 0.3},
    }
    return recipe, base, delta


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("scope", "groups"),
    [
        ("global", [NAMES]),
        ("layer", [NAMES[:1], NAMES[1:3], NAMES[3:4], NAMES[4:]]),
        ("tensor", [(name,) for name in NAMES]),
    ],
)
def test_what_a_group_keeps(tmp_path: Path, scope: str, groups: list[Any], dtype: Any, backend: str) -> None:
    recipe, base, delta = write(tmp_path, dict.fromkeys(NAMES, dtype))
    recipe["parameters"]["trim_scope"] = scope
    output = merges.run(merges.schedule(recipe), tmp_path / "out", backend=backend)
    (merged,) = (load(data) for data in output.files.values())
    for group in groups:
        count = sum(max(1, int(0.3 * base[name].size)) for name in group)
        for name, mask in zip(group, keep_largest([delta[name] for name in group], count), strict=True):
            assert np.array_equal(merged[name], base[name] + np.where(mask, delta[name], 0)), name


def test_densities_by_filter_are_added_up(tmp_path: Path) -> None:
    recipe, base, delta = write(tmp_path, {})
    recipe["parameters"] |= {"trim_scope": "global", "density": [{"filter": "embed", "value": 0}, {"value": 0.5}]}
    output = merges.run(merges.schedule(recipe), tmp_path / "out")
    (merged,) = (load(data) for data in output.files.values())
    count = sum(int(0.5 * base[name].size) for name in NAMES[1:])
    # What keeps nothing takes no part: its magnitudes crowd nobody out.
    assert np.array_equal(merged["embed"], base["embed"])
    for name, mask in zip(NAMES[1:], keep_largest([delta[name] for name in NAMES[1:]], count), strict=True):
        assert np.array_equal(merged[name], base[name] + np.where(mask, delta[name], 0)), name


def test_precisions_do_not_mix(tmp_path: Path) -> None:
    recipe, _, _ = write(tmp_path, {"norm": np.float64})
    recipe["parameters"]["trim_scope"] = "global"
    with pytest.raises(DTypeError, match=r'"embed" and "norm" are trimmed together .* float64, or trim_scope: tensor'):
        pymerge.plan(recipe)


def test_a_plan_counts_the_passes_of_groups(tmp_path: Path) -> None:
    recipe, _, _ = write(tmp_path, {})
    costs = {}
    for scope in ("tensor", "global"):
        recipe["parameters"]["trim_scope"] = scope
        costs[scope] = count_costs(pymerge.plan(recipe))
    assert costs["tensor"].passes == 2
    assert costs["global"].passes == 3
    assert 2 * costs["global"].read == 3 * costs["tensor"].read


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    share=st.floats(0, 1),
    wide=st.booleans(),
    special=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_group_is_a_stable_sort(sizes: list[int], share: float, wide: bool, special: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    kind = "float64" if wide else "float32"
    parts = [values(random, size).astype(kind) for size in sizes]
    if special:
        for part in parts:
            part[random.random(part.size) < 0.1] = np.inf
    counts = [int(share * size) for size in sizes]
    tasks = [
        TensorTask(str(n), part.shape, BY_NAME[kind], (), ("model",), None, BY_NAME[kind])
        for n, part in enumerate(parts)
    ]
    selects = {n: Select((0,), (count,), group="all") for n, count in enumerate(counts)}
    ops = ReferenceOps()

    def measure(requests: Any) -> Any:
        for request in requests.values():
            # Above all keys there is nothing to count.
            assert not isinstance(request, KeyCounts) or max(request.lows) >> (63 if wide else 31) == 0
        return [(n, ops.measure(request, [parts[n]], BY_NAME[kind])) for n, request in requests.items()]

    cuts = find_group_cuts(tasks, selects, measure)
    word = np.uint64 if wide else np.uint32
    for n, mask in enumerate(keep_largest(parts, sum(counts))):
        (cut,) = cuts[n]
        keys, index = np.abs(parts[n]).view(word), np.arange(parts[n].size)
        assert isinstance(cut, Cut)
        inside = [
            int(key) > cut.bits or (int(key) == cut.bits and at <= cut.last)
            for key, at in zip(keys, index, strict=True)
        ]
        assert inside == mask.tolist()


@pytest.mark.parametrize("beyond", [False, True])
@pytest.mark.parametrize("low", [(1 << 31) - 1, 1 << 31, (1 << 31) + 100, (1 << 32) - 300])
def test_counting_above_all_keys_finds_none(low: int, beyond: bool) -> None:
    operands = [values(np.random.default_rng(1), 500)]
    for buckets in (1, 200):
        request = KeyCounts((0,), (low,), 0, buckets, None, beyond)
        assert not np.any(CpuOps().measure(request, operands, BY_NAME["float32"]))


@pytest.mark.parametrize("gamma", [0, 0.01, 0.5])
@pytest.mark.parametrize("size", [16, 33, 3000])
def test_a_group_of_which_nothing_is_trimmed_at_the_top(tmp_path: Path, size: int, gamma: float) -> None:
    random = np.random.default_rng(size)
    folders = merges.write_models(tmp_path, [{"w": random.standard_normal(size).astype(np.float32)} for _ in range(2)])
    recipe = {
        "merge_method": "breadcrumbs",
        "base_model": str(folders[0]),
        "models": [{"model": str(folders[1])}],
        "parameters": {"weight": 1, "density": 0.5, "gamma": gamma},
    }
    files = []
    for scope in ("tensor", "global"):
        recipe["parameters"]["trim_scope"] = scope
        made = merges.schedule(recipe)
        files += [merges.run(made, tmp_path / f"{scope}-{each}", backend=each).files for each in ("cpu", "reference")]
    assert all(each == files[0] for each in files)


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_a_sample_may_mislead(kind: str) -> None:
    random = np.random.default_rng(5)
    sizes, wanted = (700_000, 300, 180_000, 0), 300_000
    parts = [random.standard_normal(size).astype(kind) for size in sizes]
    tasks = [
        TensorTask(str(n), part.shape, BY_NAME[kind], (), ("model",), None, BY_NAME[kind])
        for n, part in enumerate(parts)
    ]
    selects = {n: Select((0,), (wanted if n == 0 else 0,), group="all") for n in range(len(parts))}
    ops = CpuOps()

    def find(misleading: bool) -> tuple[object, int]:
        """The cuts, and how often all tensors were asked."""
        rounds = 0

        def measure(requests: Any) -> Any:
            nonlocal rounds
            rounds += len(requests) == len(parts)
            for n, request in requests.items():
                answer = ops.measure(request, [parts[n]], BY_NAME[kind])
                yield n, [0 for _ in answer] if misleading and isinstance(request, KeySample) else answer

        return find_group_cuts(tasks, selects, measure), rounds

    (cuts, rounds), (misled, more) = find(False), find(True)
    assert misled == cuts
    # The sample, a bracket and its last bits (float64 has more of them); if the bracket fails, all keys' passes.
    assert rounds == (5 if kind == "float64" else 3)
    assert more == rounds + 2
    ordered = np.sort(np.abs(np.concatenate(parts)))[::-1]
    assert cuts[0][0].magnitude(wide=kind == "float64") == ordered[wanted - 1]
