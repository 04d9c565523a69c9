"""One recipe, one set of bytes: whatever runs it, in whatever pieces, into whatever files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from execute import merges
from execute.merges import METHODS, SHAPES, Output, make_recipe, random_tensors, run, schedule
from safetensors.numpy import load

from pymerge import _core
from pymerge.methods import method_names
from pymerge.schedule import Schedule


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four models whose tensors have different element types."""
    return merges.write_models(tmp_path_factory.mktemp("mixed"), [random_tensors(seed) for seed in range(4)])


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four models in float64."""
    models = [random_tensors(seed, np.float64) for seed in range(4)]
    return merges.write_models(tmp_path_factory.mktemp("wide"), models)


class Expected:
    """What the reference backend writes, once for each recipe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, dict[str, bytes]] = {}

    def files(self, recipe: dict[str, Any]) -> dict[str, bytes]:
        key = repr(recipe)
        if key not in self._known:
            folder = self._folder / str(len(self._known))
            self._known[key] = run(schedule(recipe), folder, backend="reference").files
        return self._known[key]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Expected:
    return Expected(tmp_path_factory.mktemp("reference"))


def tensors_of(output: Output) -> dict[str, np.ndarray]:
    """All tensors of all files, as the safetensors package reads them."""
    found: dict[str, np.ndarray] = {}
    for content in output.files.values():
        found.update(load(content))
    return found


@pytest.mark.parametrize("method", METHODS)
class TestEveryMethod:
    @pytest.mark.parametrize("dtype", [None, "bfloat16", "float16", "float32", "float64"])
    def test_the_engine_writes_what_the_reference_writes(
        self, tmp_path: Path, mixed: list[Path], expected: Expected, method: str, dtype: str | None
    ) -> None:
        recipe = make_recipe(method, mixed, dtype=dtype)
        assert run(schedule(recipe), tmp_path / "out").files == expected.files(recipe)

    @pytest.mark.parametrize("dtype", [None, "bfloat16"])
    def test_float64_inputs_are_merged_in_float64(
        self, tmp_path: Path, wide: list[Path], expected: Expected, method: str, dtype: str | None
    ) -> None:
        recipe = make_recipe(method, wide, dtype=dtype)
        assert run(schedule(recipe), tmp_path / "out").files == expected.files(recipe)

    @pytest.mark.parametrize("level", merges.levels())
    def test_every_instruction_set_gives_the_same(
        self, tmp_path: Path, mixed: list[Path], expected: Expected, method: str, level: str
    ) -> None:
        recipe = make_recipe(method, mixed, dtype="bfloat16")
        with merges.forced(level):
            assert run(schedule(recipe), tmp_path / "out").files == expected.files(recipe)

    @pytest.mark.parametrize("threads", [1, 2, 7])
    def test_threads_blocks_and_buffers_change_nothing(
        self, tmp_path: Path, mixed: list[Path], expected: Expected, method: str, threads: int
    ) -> None:
        recipe = make_recipe(method, mixed, dtype="bfloat16")
        # The smallest block that can be written, one that divides nothing, one that holds the file.
        for block, buffers in ((4096, 1), (4096, 9), (12288, 3), (1 << 20, 2)):
            made = schedule(recipe, threads=threads, block=block, buffers=buffers)
            output = run(made, tmp_path / f"{block}-{buffers}")
            assert output.files == expected.files(recipe), (block, buffers)

    @pytest.mark.parametrize("limit", [1, 4_000, 30_000])
    def test_shards_hold_the_same_tensors(
        self, tmp_path: Path, mixed: list[Path], expected: Expected, method: str, limit: int
    ) -> None:
        recipe = make_recipe(method, mixed, dtype="float32")
        output = run(schedule(recipe, shard_size=limit), tmp_path / "out")
        assert len(output.files) > 1
        whole, parts = load(expected.files(recipe)["model.safetensors"]), tensors_of(output)
        assert {name: (t.shape, t.tobytes()) for name, t in parts.items()} == {
            name: (t.shape, t.tobytes()) for name, t in whole.items()
        }


def test_buffered_writes_give_the_same(
    tmp_path: Path, mixed: list[Path], expected: Expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = _core.Engine
    monkeypatch.setattr(_core, "Engine", lambda **settings: engine(**{**settings, "direct": False}))
    recipe = make_recipe("ties", mixed, dtype="bfloat16")
    output = run(schedule(recipe), tmp_path / "out")
    assert output.files == expected.files(recipe)
    assert not output.report.direct


def test_a_tensor_over_many_tiles_and_blocks_is_whole(tmp_path: Path) -> None:
    # 700,001 elements: three measuring tiles, the last one odd; none of them starts at a block's edge.
    random = np.random.default_rng(3)
    models = [
        {"a": random.standard_normal(13).astype(ml_dtypes.bfloat16),
         "big": random.standard_normal(700_001).astype(ml_dtypes.bfloat16)}
        for _ in range(3)
    ]  # fmt: skip
    folders = merges.write_models(tmp_path, models)
    for method in ("slerp", "ties", "dare_ties"):
        recipe = make_recipe(method, folders, dtype="bfloat16")
        cpu = run(schedule(recipe, block=20480, threads=3), tmp_path / method)
        assert cpu.files == run(schedule(recipe), tmp_path / f"{method}-reference", backend="reference").files


def test_hundreds_of_tiny_tensors_in_as_many_files(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    models = [
        {f"t{place:03}": random.standard_normal(place % 4).astype(np.float32) for place in range(300)} for _ in range(3)
    ]
    folders = merges.write_models(tmp_path, models)
    recipe = make_recipe("ties", folders, dtype="float32")
    whole = run(schedule(recipe, threads=7, buffers=1), tmp_path / "whole")
    parts = run(schedule(recipe, threads=7, buffers=1, shard_size=1), tmp_path / "parts")
    assert len(parts.files) > 200
    assert {n: t.tobytes() for n, t in tensors_of(whole).items()} == {
        n: t.tobytes() for n, t in tensors_of(parts).items()
    }


def test_plain_copies_are_the_source_bit_for_bit(tmp_path: Path) -> None:
    special = np.array([np.nan, -np.nan, np.inf, -0.0, 1e-45], np.float32)
    tensors = {
        "layers.0.w": special,
        "layers.0.codes": np.arange(9, dtype=np.uint8),
        "layers.1.flag": np.array([True, False]),
        "layers.1.w": np.arange(9000, dtype=np.float32).reshape(90, 100),
        "empty": np.empty((0, 3), np.int64),
        "one": np.array(7, np.int32),
    }
    folders = merges.write_models(tmp_path, [tensors])
    recipe = {"merge_method": "passthrough", "models": [{"model": str(folders[0])}]}
    copied = tensors_of(run(schedule(recipe), tmp_path / "out"))
    assert {name: (t.dtype, t.shape, t.tobytes()) for name, t in copied.items()} == {
        name: (t.dtype, t.shape, t.tobytes()) for name, t in tensors.items()
    }


def test_integers_that_agree_are_copied(tmp_path: Path) -> None:
    positions = np.arange(5000, dtype=np.int64)
    models = [{**random_tensors(seed), "positions": positions} for seed in range(3)]
    output = merges.merge_arrays(tmp_path, "linear", [models[0], *models])
    assert tensors_of(output)["positions"].tobytes() == positions.tobytes()


def test_the_shapes_are_those_of_the_inputs(tmp_path: Path, mixed: list[Path]) -> None:
    output = run(schedule(make_recipe("linear", mixed)), tmp_path / "out")
    assert {name: tensor.shape for name, tensor in tensors_of(output).items()} == SHAPES


def test_a_merge_without_any_data_writes_a_header(tmp_path: Path) -> None:
    models = [{"empty": np.empty((0, 4), np.float32)} for _ in range(3)]
    folders = merges.write_models(tmp_path, models)
    made: Schedule = schedule(make_recipe("ties", folders, dtype="float32"))
    assert load(run(made, tmp_path / "out").files["model.safetensors"])["empty"].shape == (0, 4)


def test_every_method_is_among_the_merges() -> None:
    assert {name.partition("-")[0] for name in METHODS} == set(method_names())
