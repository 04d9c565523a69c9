"""Two checkpoints against each other: what differs, by how much, and whether that is allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import pymerge
from pymerge.errors import FormatError, RecipeError
from pymerge.verify import reading
from pymerge.verify.compare import Comparison

BF16 = ml_dtypes.bfloat16


def write(folder: Path, tensors: dict[str, Any], shards: int = 1) -> Path:
    """A checkpoint of these tensors, in one file or dealt out to several."""
    if shards == 1:
        return toys.write_checkpoint(folder, tensors, {})
    folder.mkdir(parents=True)
    weight_map = {}
    for shard in range(shards):
        part = {name: tensors[name] for name in list(tensors)[shard::shards]}
        save_file(part, folder / f"part-{shard}.safetensors")
        weight_map.update(dict.fromkeys(part, f"part-{shard}.safetensors"))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text("{}")
    return folder


def compare(folder: Path, first: dict[str, Any], second: dict[str, Any], **options: Any) -> Comparison:
    return pymerge.compare(write(folder / "a", first), write(folder / "b", second), **options)


def some(seed: int = 0, count: int = 100, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(seed).standard_normal(count).astype(dtype)


def test_a_model_agrees_with_itself(tmp_path: Path) -> None:
    model = toys.write_llama(tmp_path / "m", dtype=BF16)
    compared = pymerge.compare(model, model)
    assert compared.agree
    assert all(tensor.share == 1 and not tensor.relative for tensor in compared.tensors)


def test_the_order_and_the_shards_of_tensors_do_not_count(tmp_path: Path) -> None:
    tensors = {name: some(seed) for seed, name in enumerate("abcde")}
    first = write(tmp_path / "a", tensors, shards=3)
    second = write(tmp_path / "b", dict(reversed(tensors.items())), shards=2)
    assert pymerge.compare(first, second).agree


def test_a_single_file_compares_with_a_folder(tmp_path: Path) -> None:
    model = write(tmp_path / "a", {"w": some()})
    assert pymerge.compare(model / "model.safetensors", model).agree


def test_one_step_in_one_element_is_one_unit(tmp_path: Path) -> None:
    left = some()
    right = left.copy()
    right[7] = np.nextafter(right[7], np.float32(np.inf))
    (tensor,) = compare(tmp_path, {"w": left}, {"w": right}).tensors
    assert (tensor.equal, tensor.max_ulp, tensor.apart) == (99, 1, 0)
    assert tensor.relative == pytest.approx(abs(float(right[7]) - left[7]) / np.linalg.norm(left.astype(float)))


@pytest.mark.parametrize(("allowed", "agree"), [(0, False), (2, False), (3, True), (4, True)])
def test_as_many_units_as_are_allowed_agree(tmp_path: Path, allowed: int, agree: bool) -> None:
    left = np.array([1.0], np.float32)
    right = np.array([1 + 3 * 2.0**-23], np.float32)
    assert compare(tmp_path, {"w": left}, {"w": right}, max_ulp=allowed).agree is agree


def test_names_that_only_one_has_and_shapes_that_differ_are_told_apart(tmp_path: Path) -> None:
    compared = compare(
        tmp_path,
        {"both": some(), "mine": some(), "bent": some(count=6).reshape(2, 3)},
        {"both": some(), "yours": some(), "bent": some(count=6).reshape(3, 2)},
    )
    assert (compared.missing, compared.surplus) == (("mine",), ("yours",))
    assert [(each.name, each.first, each.second) for each in compared.misfits] == [("bent", (2, 3), (3, 2))]
    assert not compared.agree


def test_another_type_of_the_same_values_needs_a_tolerance(tmp_path: Path) -> None:
    narrow = some(dtype=BF16)
    wide = narrow.astype(np.float32)
    (tensor,) = compare(tmp_path, {"w": narrow}, {"w": wide}).tensors
    assert (tensor.dtypes, tensor.share, tensor.max_ulp) == (("bfloat16", "float32"), 1.0, 0)
    assert not tensor.is_within(0)
    assert tensor.is_within(1)


@pytest.mark.parametrize("kinds", [(BF16, np.float32), (np.float16, np.float64), (np.float32, np.float64)])
def test_what_was_rounded_to_a_narrower_type_is_within_one_unit(tmp_path: Path, kinds: tuple[Any, Any]) -> None:
    wide = some(dtype=kinds[1])
    assert compare(tmp_path, {"w": wide.astype(kinds[0])}, {"w": wide}, max_ulp=1).agree


def test_integers_are_the_same_or_apart(tmp_path: Path) -> None:
    left, right = np.arange(10), np.arange(10)
    right[3] += 1
    (tensor,) = compare(tmp_path, {"w": left}, {"w": right}, max_ulp=1000).tensors
    assert (tensor.equal, tensor.apart, tensor.is_within(1000)) == (9, 1, False)


def test_integers_and_floats_have_nothing_in_common(tmp_path: Path) -> None:
    (tensor,) = compare(tmp_path, {"w": np.arange(10)}, {"w": np.arange(10.0)}, max_ulp=1).tensors
    assert (tensor.equal, tensor.apart) == (0, 10)


def test_a_nan_is_like_a_nan_and_unlike_everything_else(tmp_path: Path) -> None:
    left = np.array([np.nan, 1, np.inf, np.inf], np.float32)
    right = np.array([np.nan, np.nan, np.inf, -np.inf], np.float32)
    right[:1].view(np.uint32)[0] |= 1
    (tensor,) = compare(tmp_path, {"w": left}, {"w": right}).tensors
    assert (tensor.equal, tensor.apart, tensor.max_ulp, tensor.relative) == (2, 2, 0, 0.0)


def test_tensors_without_elements_agree(tmp_path: Path) -> None:
    compared = compare(tmp_path, {"w": np.empty((0, 3), np.float32)}, {"w": np.empty((0, 3), np.float32)})
    assert compared.agree
    assert compared.tensors[0].share == 1.0


def test_the_worst_tensors_come_first(tmp_path: Path) -> None:
    left = {name: np.ones(4, np.float32) for name in "abcd"}
    right = {name: value.copy() for name, value in left.items()}
    right["b"][0], right["c"][0], right["d"][0] = 1.5, 1.25, np.inf
    compared = compare(tmp_path, left, right)
    assert [tensor.name for tensor in compared.differing] == ["d", "b", "c"]
    assert compared.to_json()["differing"] == ["d", "b", "c"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(width=16), st.floats(width=16)), max_size=40), st.sampled_from([np.float16, BF16]))
def test_which_is_first_changes_nothing_but_names(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[float, float]], kind: Any
) -> None:
    folder = tmp_path_factory.mktemp("pair")
    sides = [write(folder / str(side), {"w": np.array([pair[side] for pair in pairs], kind)}) for side in (0, 1)]
    there, back = pymerge.compare(*sides), pymerge.compare(*reversed(sides))
    assert there.tensors == back.tensors


def test_pieces_add_up_to_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = some(0, 1000), some(1, 1000)
    right[::2] = left[::2]
    whole = compare(tmp_path / "whole", {"w": left}, {"w": right})
    monkeypatch.setattr(reading.read_pieces, "__defaults__", (7,))
    pieces = compare(tmp_path / "pieces", {"w": left}, {"w": right})
    (a,), (b,) = whole.tensors, pieces.tensors
    assert (a.equal, a.max_ulp, a.apart) == (b.equal, b.max_ulp, b.apart) == (500, a.max_ulp, 0)
    assert a.relative == pytest.approx(b.relative)
    assert a.relative == pytest.approx(np.linalg.norm(left - right) / np.linalg.norm(right), rel=0.05)


def test_norms_of_the_largest_and_the_least_float64_are_finite(tmp_path: Path) -> None:
    big = np.finfo(np.float64).max
    for name, value in (("big", big), ("small", 1e-300)):
        (tensor,) = compare(tmp_path / name, {"w": np.array([value, value])}, {"w": np.array([value, -value])}).tensors
        assert tensor.relative == pytest.approx(2**0.5)


def test_a_model_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such folder"):
        pymerge.compare(write(tmp_path / "a", {"w": some()}), tmp_path / "b")


def test_a_truncated_file_is_an_error(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, {"w": some()}) for name in "ab")
    file = second / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(FormatError):
        pymerge.compare(first, second)
