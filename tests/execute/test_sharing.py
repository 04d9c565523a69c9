"""Copies that share their source's extents: on file systems that can, everything is as without, but not written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import disks
import ml_dtypes
import numpy as np
import pytest
import toys
from execute import merges
from safetensors.numpy import load_file
from typer.testing import CliRunner

import pymerge
from pymerge import MergeReport, _core
from pymerge.cli import app
from pymerge.errors import ResourceError
from pymerge.execute import execute
from pymerge.output.sharing import count_shareable

MIB = 1 << 20
PAGE = 4096
#: What a file system may need to know more than before, whatever the size of the files.
BOOKKEEPING = 3 * MIB


@pytest.fixture(scope="module", params=["xfs", "btrfs"])
def disk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system whose files can share extents."""
    hindrance = disks.find_hindrance(request.param)
    if hindrance:
        pytest.skip(hindrance)
    with disks.mounted(request.param, tmp_path_factory.mktemp("disk"), 512 * MIB) as folder:
        yield folder


@pytest.fixture
def place(disk: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder on that file system which is emptied again."""
    folder = disk / hashlib.sha256(request.node.name.encode()).hexdigest()[:8]
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def make_tensors(seed: int, layers: int = 3) -> dict[str, np.ndarray]:
    """Layers of whole pages, one tensor larger than a block (4 MiB) each; before and after them smaller than a page."""
    random = np.random.default_rng(seed)
    shapes = {"embed": (332, 36), "norm": (100,)}
    for layer in range(layers):
        shapes |= {f"layers.{layer}.bias": (2048,), f"layers.{layer}.weight": (1200, 2048)}
    return {
        name: random.standard_normal(shape, np.float32).astype(ml_dtypes.bfloat16) for name, shape in shapes.items()
    }


def write_model(folder: Path, seed: int, layers: int = 3) -> Path:
    config = {"model_type": "toy", "num_hidden_layers": layers}
    return toys.write_checkpoint(folder, make_tensors(seed, layers), config)


def write_by_hand(folder: Path, tensors: Mapping[str, np.ndarray], header_size: int) -> Path:
    """As another program would write it: the data begins at `header_size`."""
    entries: dict[str, Any] = {}
    end = 0
    for name, tensor in sorted(tensors.items()):
        begin, end = end, end + tensor.nbytes
        entries[name] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": [begin, end]}
    text = json.dumps(entries).encode().ljust(header_size - 8)
    assert len(text) == header_size - 8
    folder.mkdir(parents=True)
    data = b"".join(tensor.tobytes() for _, tensor in sorted(tensors.items()))
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    (folder / "config.json").write_text(json.dumps({"model_type": "toy", "num_hidden_layers": 3}))
    return folder


def passthrough(*models: Path, **changes: Any) -> dict[str, Any]:
    """One model as it is, or layers 0 and 1 of the first on top of which come 1 and 2 of the second."""
    if len(models) == 1:
        return {"merge_method": "passthrough", "models": [{"model": str(models[0])}], **changes}
    ranges = zip(models, [[0, 2], [1, 3]], strict=True)
    slices = [{"sources": [{"model": str(model), "layer_range": span}]} for model, span in ranges]
    return {"merge_method": "passthrough", "slices": slices, **changes}


def read_bytes(folder: Path) -> dict[str, bytes]:
    """Every tensor, as the official reader finds it."""
    return {name: tensor.tobytes() for name, tensor in load_file(folder / "model.safetensors").items()}


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}


def free_space(folder: Path) -> int:
    """After everything that was written, and everything that was removed, has been accounted for."""
    subprocess.run(["sync", "-f", str(folder)], check=True)
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize


def merge_both_ways(recipe: dict[str, Any], place: Path, elsewhere: Path, **options: Any) -> MergeReport:
    """Merge with and without sharing and on another disk, to the same bytes; the report of the first."""
    report = pymerge.merge(recipe, place / "shared", **options)
    written = pymerge.merge(recipe, place / "written", reflink=False, **options)
    pymerge.merge(recipe, elsewhere / "elsewhere", **options)
    assert digests(place / "shared") == digests(place / "written") == digests(elsewhere / "elsewhere")
    shutil.rmtree(elsewhere / "elsewhere")
    assert written.execution.shared == 0
    assert written.execution.written == written.size
    assert report.execution.written + report.execution.shared == report.size
    return report


@pytest.mark.parametrize("count", [1, 2])
def test_copied_layers_are_not_written_again(place: Path, tmp_path: Path, count: int) -> None:
    models = [write_model(place / f"m{seed}", seed) for seed in range(count)]
    report = merge_both_ways(passthrough(*models), place, tmp_path)
    # The header, and pages that are half of something else.
    assert report.execution.written < 20 * PAGE
    assert report.execution.read < 20 * PAGE
    merged, first, last = (read_bytes(folder) for folder in (place / "shared", models[0], models[-1]))
    if count == 1:
        assert merged == first
    for part in ("bias", "weight"):
        assert merged[f"layers.1.{part}"] == first[f"layers.1.{part}"]
        assert merged[f"layers.{2 if count == 1 else 3}.{part}"] == last[f"layers.2.{part}"]


def test_the_disk_does_not_get_fuller(place: Path) -> None:
    model = write_model(place / "m", 0)
    before = free_space(place)
    report = pymerge.merge(passthrough(model), place / "out")
    assert before - free_space(place) < BOOKKEEPING < report.size // 4
    pymerge.merge(passthrough(model), place / "written", reflink=False)
    assert before - free_space(place) > report.size


def test_a_plan_tells_what_a_merge_then_shares(place: Path) -> None:
    recipe = place / "recipe.json"
    recipe.write_text(json.dumps(passthrough(write_model(place / "a", 0), write_model(place / "b", 1))))

    def plan(*options: str) -> dict[str, Any]:
        command = ["merge", str(recipe), str(place / "out"), "--dry-run", "--format", "json", *options]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.stderr
        facts: dict[str, Any] = json.loads(result.stdout)
        return facts

    facts, without = plan(), plan("--no-reflink")
    report = pymerge.merge(recipe, place / "out")
    assert facts["shared"] == report.execution.shared > 0.99 * report.size
    assert facts["needed"] == report.execution.written
    assert facts["read"] == report.execution.read
    assert (without["shared"], without["needed"]) == (0, report.size)
    shown = CliRunner().invoke(app, ["plan", str(recipe), "--out", str(place / "out")]).stdout
    assert "with the inputs, instead of writing them again" in shown


def test_the_command_line_can_refuse_to_share(place: Path) -> None:
    recipe = place / "recipe.json"
    recipe.write_text(json.dumps(passthrough(write_model(place / "m", 0))))
    results = {}
    for option in ("--reflink", "--no-reflink"):
        result = CliRunner().invoke(app, ["merge", str(recipe), str(place / option), option, "--format", "json"])
        assert result.exit_code == 0, result.stderr
        results[option] = json.loads(result.stdout)["execution"]["shared"]
    assert results["--reflink"] > 0 == results["--no-reflink"]


def test_of_sources_that_lie_differently_in_their_pages_the_heavier_is_shared(place: Path, tmp_path: Path) -> None:
    # 2 layers of the first, 1 of the second, whose data begins in the middle of a page.
    first = write_model(place / "a", 0)
    second = write_by_hand(place / "b", make_tensors(1), PAGE + 1000)
    slices = [
        {"sources": [{"model": str(first), "layer_range": [0, 2]}]},
        {"sources": [{"model": str(second), "layer_range": [2, 3]}]},
    ]
    report = merge_both_ways({"merge_method": "passthrough", "slices": slices}, place, tmp_path)
    layer = sum(tensor.nbytes for name, tensor in make_tensors(0).items() if name.startswith("layers.0."))
    assert 2 * layer - 2 * PAGE <= report.execution.shared <= 2 * layer + 332 * 36 * 2
    assert report.execution.read >= layer


@pytest.mark.parametrize("near", [0, 1])
def test_only_what_is_on_the_same_file_system_is_shared(place: Path, tmp_path: Path, near: int) -> None:
    folders = [tmp_path, tmp_path]
    folders[near] = place
    recipe = passthrough(*(write_model(folder / f"m{seed}", seed) for seed, folder in enumerate(folders)))
    made = merges.schedule(recipe)
    expected = count_shareable(made, place)
    report = merge_both_ways(recipe, place, tmp_path)
    assert report.execution.shared == expected
    assert 0.4 * report.size < expected < 0.6 * report.size


def test_what_only_has_room_if_shared_is_merged(place: Path) -> None:
    model = write_model(place / "m", 0, layers=10)
    recipe = passthrough(model)
    size = (model / "model.safetensors").stat().st_size
    with (place / "ballast").open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, free_space(place) - size // 2)
    assert free_space(place) < 0.9 * size
    with pytest.raises(ResourceError, match="make room for"):
        pymerge.merge(recipe, place / "out", reflink=False)
    pymerge.merge(recipe, place / "out", overwrite=True)
    assert read_bytes(place / "out") == read_bytes(model)


@pytest.mark.parametrize(
    ("method", "parameters", "model"),
    [
        ("linear", [{"weight": 0.0}, {"weight": 1.0}], 1),
        ("task_arithmetic", [{"weight": 0.0}], 0),
        ("ties", [{"weight": 0.5, "density": 0.0}], 0),
        ("dare_linear", [{"weight": 0.5, "density": 0.0}], 0),
    ],
)
def test_weights_and_densities_that_leave_one_model_share_it(
    place: Path, tmp_path: Path, method: str, parameters: list[dict[str, float]], model: int
) -> None:
    models = [write_model(place / f"m{seed}", seed) for seed in range(2)]
    based = models[len(models) - len(parameters) :]
    entries = [{"model": str(path), "parameters": each} for path, each in zip(based, parameters, strict=True)]
    recipe: dict[str, Any] = {"merge_method": method, "models": entries}
    if len(parameters) == 1:
        recipe["base_model"] = str(models[0])
    report = merge_both_ways(recipe, place, tmp_path)
    assert report.execution.written < 20 * PAGE
    assert read_bytes(place / "shared") == read_bytes(models[model])


@pytest.mark.parametrize("changes", [{"dtype": "float32"}, {"parameters": {"scale": 0.5}}])
def test_what_is_not_a_copy_of_bytes_is_not_shared(place: Path, changes: dict[str, Any]) -> None:
    report = pymerge.merge(passthrough(write_model(place / "m", 0), **changes), place / "out")
    assert report.execution.shared == 0
    assert report.execution.written == report.size


def test_what_is_written_to_an_output_later_does_not_reach_its_source(place: Path) -> None:
    model = write_model(place / "m", 0)
    before = digests(model)
    pymerge.merge(passthrough(model), place / "out")
    path = place / "out" / "model.safetensors"
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        stream.write(b"\xff" * 3 * PAGE)
    assert digests(model) == before
    kept = digests(place / "out")
    (model / "model.safetensors").unlink()
    assert digests(place / "out") == kept


@pytest.mark.parametrize("block", [PAGE, 16 * PAGE, 4 * MIB])
def test_blocks_that_are_shared_in_part_are_written_in_part(place: Path, tmp_path: Path, block: int) -> None:
    models = [write_model(place / f"m{seed}", seed) for seed in range(2)]
    entries = [{"model": str(model), "layer_range": [0, 3]} for model in models]
    recipe = {
        "merge_method": "slerp",
        "base_model": str(models[0]),
        "slices": [{"sources": entries}],
        "parameters": {"t": [{"filter": "bias", "value": 0.3}, {"filter": "embed", "value": 0.6}, {"value": 0}]},
    }
    made = merges.schedule(recipe, block=block)
    outputs = [merges.run(made, place / str(reflink), reflink=reflink) for reflink in (True, False)]
    elsewhere = merges.run(made, tmp_path / "out")
    assert outputs[0].files == outputs[1].files == elsewhere.files
    report = outputs[0].report
    assert report.direct
    weights = sum(tensor.nbytes for name, tensor in make_tensors(0).items() if "weight" in name)
    assert weights - 6 * PAGE <= report.shared <= weights


def test_a_file_of_whole_pages_is_its_header_and_nothing_else(place: Path) -> None:
    names = [f"layers.{layer}.w{part}" for layer in range(3) for part in range(300)]
    tensors = {name: np.full((2048,), at, ml_dtypes.bfloat16) for at, name in enumerate(names)}
    model = write_by_hand(place / "m", tensors, 32 * PAGE)
    made = merges.schedule(passthrough(model), block=PAGE)
    (place / "out").mkdir()
    report = execute(made, place / "out")
    assert (report.read, report.written) == (0, len(made.shards[0].header))
    assert read_bytes(place / "out") == {name: tensor.tobytes() for name, tensor in tensors.items()}


def test_a_copy_may_be_named_when_its_file_is_whole_already(place: Path) -> None:
    """Its last blocks are all shared: the file waits for none of them, and later nothing of them is kept."""
    source = place / "source"
    source.write_bytes(bytes(PAGE) + b"x" * 8 * PAGE)
    engine = _core.Engine(threads=1, block=PAGE, buffers=1, writers=1, direct=True, stop_on_nonfinite=True)
    tensor = _core.Tensor.from_file(_core.MappedFile(str(source)), PAGE, 8 * PAGE, "U8")
    segments = [(0, PAGE), (PAGE, 8 * PAGE)]
    engine.open_shard(str(place / "partial"), str(place / "whole"), segments, [(1, tensor)])
    engine.fill_bytes(0, 0, b"y" * PAGE)
    merges.wait_for(engine, shards=1)
    engine.fill_copy(0, 1, tensor)
    engine.stop()
    del engine, tensor
    assert (place / "whole").read_bytes() == b"y" * PAGE + b"x" * 8 * PAGE
    assert str(source) not in [os.readlink(path) for path in open_files()]


def open_files() -> list[Path]:
    """What this process has open, without the one that lists them."""
    return [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]


def test_shards_share_each_its_part(place: Path, tmp_path: Path) -> None:
    recipe = passthrough(write_model(place / "a", 0), write_model(place / "b", 1))
    report = merge_both_ways(recipe, place, tmp_path, shard_size=6 * MIB)
    assert len(report.shards) == 4
    assert report.execution.written < 40 * PAGE


def test_nothing_is_left_of_a_merge_that_fails_after_sharing(place: Path) -> None:
    models = [write_model(place / f"m{seed}", seed) for seed in range(2)]
    before = free_space(place)
    out = place / "out"
    out.mkdir()

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(merges.schedule(passthrough(*models)), out, on_progress=stop)
    assert list(out.iterdir()) == []
    assert before - free_space(place) < BOOKKEEPING


def test_where_nothing_can_be_shared_all_is_written(tmp_path: Path) -> None:
    if disks.find_hindrance("ext4"):
        pytest.skip(str(disks.find_hindrance("ext4")))
    with disks.mounted("ext4", tmp_path, 64 * MIB) as folder:
        model = write_model(folder / "m", 0)
        made = merges.schedule(passthrough(model))
        shared, written = (merges.run(made, folder / str(on), reflink=on) for on in (True, False))
        assert count_shareable(made, folder) == 0
        assert shared.report.shared == 0
        assert shared.report.written == sum(map(len, shared.files.values()))
        assert shared.files == written.files
        assert shared.files["model.safetensors"].endswith(make_tensors(0)["norm"].tobytes())


def test_a_shard_whose_twins_are_refused_is_filled_like_any_other(tmp_path: Path) -> None:
    # Input and output on two file systems, or on one that may share: the bytes are the same.
    model = write_model(tmp_path / "m", 0)
    made = merges.schedule(passthrough(model))
    shared, written = (merges.run(made, tmp_path / str(on), reflink=on) for on in (True, False))
    assert shared.report.shared == count_shareable(made, tmp_path)
    assert shared.files == written.files
