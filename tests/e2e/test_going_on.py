"""Unfinished merges as users meet them: the same command goes on, another one is refused, two do not mix."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import disks
import numpy as np
import pytest
from execute import merges
from skip_gate import can_mount
from typer.testing import CliRunner, Result

import pymerge
from pymerge.cli import app
from pymerge.errors import RecipeError, ResourceError
from pymerge.execute import Progress
from pymerge.execute.journal import JOURNAL, Journal, claim

RECIPE = """\
# a comment
merge_method: dare_linear
base_model: {0}
models:
  - model: {1}
    parameters: {{weight: 0.5, density: 0.5}}
dtype: float32
"""


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    tensors = [
        {
            f"layers.{i}.weight": np.random.default_rng((seed, i)).standard_normal((64, 65)).astype(np.float32)
            for i in range(9)
        }
        for seed in range(2)
    ]
    return merges.write_models(tmp_path, tensors)


@pytest.fixture
def recipe(tmp_path: Path, models: list[Path]) -> Path:
    path = tmp_path / "recipe.yml"
    path.write_text(RECIPE.format(*models))
    return path


@pytest.fixture
def out(tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with spaces and more in its name, that holds half of a merge."""
    folder = tmp_path / "half a \u00fcb\u00e9r-merge"
    with monkeypatch.context() as patch:
        merges.take_small_steps(patch)

        def stop(progress: Progress) -> None:
            if progress.written > progress.total // 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pymerge.merge(recipe, folder, on_progress=stop, threads=1)
    assert (folder / JOURNAL).exists()
    assert not (folder / "config.json").exists()
    return folder


def merge(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["merge", *map(str, arguments)])


def refusal(recipe: object, out: Path, **options: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        pymerge.merge(recipe, out, **options)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert message.startswith(f"output folder {out} holds an unfinished merge that differs from this one (")
    assert message.endswith("; undo the change to go on, or give --restart to begin anew")
    return message.partition("(")[2].rpartition(")")[0]


def test_the_same_command_goes_on(tmp_path: Path, recipe: Path, out: Path) -> None:
    result = merge(recipe, out)
    assert result.exit_code == 0, result.output
    assert "of it kept from an earlier attempt" in result.output
    assert not (out / JOURNAL).exists()
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["config.json", "README.md", "mergekit_config.yml", "model.safetensors", "pymerge_manifest.json"]
    )
    pymerge.merge(recipe, tmp_path / "whole")
    for name in ("model.safetensors", "config.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    manifests = [json.loads((folder / "pymerge_manifest.json").read_text()) for folder in (out, tmp_path / "whole")]
    assert manifests[0]["digests"] == manifests[1]["digests"]
    assert len(manifests[0]["digests"]) == 9


def test_threads_memory_backend_comments_and_where_models_lie_may_change(
    tmp_path: Path, recipe: Path, out: Path
) -> None:
    recipe.write_text(recipe.read_text().replace("# a comment", "# another\n\n"))
    report = pymerge.merge(recipe, out, threads=3, memory=512 << 20, backend="reference", allow_nonfinite=True)
    assert report.execution.kept > 0


def test_another_seed_is_refused(recipe: Path, out: Path) -> None:
    assert refusal(recipe, out, seed=7) == "--seed: was 0, is 7"


def test_another_parameter_is_refused_with_its_line(recipe: Path, out: Path) -> None:
    recipe.write_text(recipe.read_text().replace("density: 0.5", "density: 0.6"))
    told = refusal(recipe, out)
    assert told.startswith(
        "recipe, line 6: was 'parameters: {weight: 0.5, density: 0.5}', is 'parameters: {weight: 0.5,"
    )


def test_another_method_is_refused(recipe: Path, out: Path) -> None:
    recipe.write_text(recipe.read_text().replace("dare_linear", "dare_ties"))
    assert refusal(recipe, out) == "merge method: was dare_linear, is dare_ties"


def test_other_shards_are_refused(recipe: Path, out: Path) -> None:
    assert refusal(recipe, out, shard_size=20_000) == "the output's files: --shard-size was another"


def test_other_models_are_refused(recipe: Path, out: Path, models: list[Path]) -> None:
    recipe.write_text(RECIPE.format(models[1], models[0]))
    assert refusal(recipe, out) == "models: the recipe named others"


def test_an_input_that_changed_is_refused_by_name(recipe: Path, out: Path, models: list[Path]) -> None:
    os.utime(models[1] / "model.safetensors", ns=(0, 1))
    assert refusal(recipe, out) == f"model {models[1]}: file model.safetensors changed (mtime_ns)"


def test_another_version_is_refused(recipe: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = pymerge.__version__
    monkeypatch.setattr(pymerge, "__version__", "9.9")
    assert refusal(recipe, out) == f"pymerge's version: was {old}, is 9.9"


def test_overwrite_does_not_mix_merges_either(recipe: Path, out: Path) -> None:
    refusal(recipe, out, seed=7, overwrite=True)


def test_restart_begins_anew(tmp_path: Path, recipe: Path, out: Path) -> None:
    assert merge(recipe, out, "--seed", "7").exit_code == 2
    result = merge(recipe, out, "--seed", "7", "--restart")
    assert result.exit_code == 0, result.output
    assert "kept" not in result.output
    pymerge.merge(recipe, tmp_path / "whole", seed=7)
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_restart_of_nothing_is_a_merge(recipe: Path, tmp_path: Path) -> None:
    assert merge(recipe, tmp_path / "new", "--restart").exit_code == 0
    assert merge(recipe, tmp_path / "new", "--restart").exit_code == 2


def test_a_damaged_journal_is_refused_and_restart_helps(recipe: Path, out: Path) -> None:
    (out / JOURNAL).write_bytes(b"\0" * 50 + b"\n" + (out / JOURNAL).read_bytes())
    with pytest.raises(RecipeError, match="journal of an unfinished merge is damaged; --restart begins anew"):
        pymerge.merge(recipe, out)
    assert (out / JOURNAL).exists()
    assert pymerge.merge(recipe, out, restart=True).execution.kept == 0


def test_a_merge_over_an_older_model_goes_on_too(tmp_path: Path, recipe: Path, out: Path, models: list[Path]) -> None:
    # The older model has a file of the name that the new one will have.
    (out / "model.safetensors").write_bytes(b"an older merge")
    (out / "model-00001-of-00002.safetensors").write_bytes(b"an older merge")
    report = pymerge.merge(recipe, out, overwrite=True)
    assert report.execution.kept > 0
    pymerge.merge(recipe, tmp_path / "whole")
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert not (out / "model-00001-of-00002.safetensors").exists()


@pytest.mark.parametrize("keep", [0, 1000, -1000])
def test_a_shard_that_is_lost_after_the_config_is_there_is_made_anew(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, keep: int
) -> None:
    out, shard = tmp_path / "out", tmp_path / "out" / "model.safetensors"

    def die(journal: Journal) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "remove", die)
        with pytest.raises(KeyboardInterrupt):
            pymerge.merge(recipe, out)
    assert (out / "config.json").exists()
    whole = shard.read_bytes()
    shard.write_bytes(whole[:keep])
    pymerge.merge(recipe, out)
    assert shard.read_bytes() == whole
    assert not (out / JOURNAL).exists()


def test_a_second_merge_into_the_folder_is_refused(recipe: Path, out: Path) -> None:
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with claim(out):
        result = merge(recipe, out)
    assert result.exit_code == 5
    assert f"output folder {out} is in use: process {os.getpid()} on " in result.output
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_input_files_are_hashed_where_asked_for(tmp_path: Path, recipe: Path, models: list[Path]) -> None:
    merge(recipe, tmp_path / "out", "--hash-inputs")
    manifest = json.loads((tmp_path / "out" / "pymerge_manifest.json").read_text())
    assert {told["model"]: told["files"][0]["sha256"] for told in manifest["inputs"]} == {
        str(model): hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest() for model in models
    }


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command_and_the_next_goes_on(
    tmp_path: Path, recipe: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "out"
    # Slow enough to be caught in the middle: a look at the progress takes a while.
    program = (
        "import sys, time; from pymerge.execute import checkpoints, feeders, flow\n"
        "from pymerge.schedule import budget\n"
        "budget._LARGE_BLOCKS = (4096,); flow._AHEAD = feeders.StreamFeeder.ahead = 8192\n"
        "flow._PROGRESS_EVERY = 0.0; checkpoints.EVERY = 0.01\n"
        "flow.MemoryWatch.sample = lambda self: time.sleep(0.05)\n"
        "from pymerge.cli import app; app(sys.argv[1:])"
    )
    command = [sys.executable, "-c", program, "merge", str(recipe), str(out), "--threads", "1"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while time.monotonic() < until and not ((out / JOURNAL).exists() and '"tensor"' in (out / JOURNAL).read_text()):
        time.sleep(0.005)
    child.send_signal(number)
    _, told = child.communicate(timeout=60)
    assert child.returncode == code, told
    assert "interrupted" in told
    assert f"of 9 tensors are kept in {out}: run the same command again to go on" in told
    assert pymerge.merge(recipe, out).execution.kept > 0


def test_merges_of_the_same_inputs_side_by_side_do_not_disturb_each_other(tmp_path: Path, recipe: Path) -> None:
    command = [sys.executable, "-m", "pymerge", "merge", str(recipe), "--quiet"]
    children = [subprocess.Popen([*command, str(tmp_path / f"out{place}")]) for place in range(3)]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    assert len({(tmp_path / f"out{place}" / "model.safetensors").read_bytes() for place in range(3)}) == 1


def test_a_limit_on_files_is_a_matter_of_the_disk(tmp_path: Path, recipe: Path) -> None:
    out = tmp_path / "out"
    limited = ["sh", "-c", 'ulimit -f 100 && exec "$0" "$@"']  # blocks of 512 bytes or of a kibibyte
    command = [*limited, sys.executable, "-m", "pymerge", "merge", str(recipe), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 5, done.stderr
    assert "File too large" in done.stderr
    assert list(out.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 kibibytes."""
    if not can_mount():
        pytest.skip("needs the right to mount file systems")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_fills_up_in_the_middle_costs_nothing_that_was_done(
    small_disk: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merges.take_small_steps(monkeypatch)
    intruder = small_disk / "somebody else's"

    def fill(progress: Progress) -> None:
        if progress.written > progress.total // 3 and not intruder.exists():
            # The merge writes on meanwhile, so what is free now is not what this gets.
            with suppress(OSError), intruder.open("wb", buffering=0) as stream:
                while stream.write(bytes(4096)):
                    pass

    with pytest.raises(ResourceError, match="cannot write: No space left on device") as caught:
        pymerge.merge(recipe, small_disk / "out", on_progress=fill, threads=1)
    assert "of 9 tensors are kept" in caught.value.__notes__[0]
    with pytest.raises(ResourceError, match="make room for"):
        pymerge.merge(recipe, small_disk / "out")
    intruder.unlink()
    assert pymerge.merge(recipe, small_disk / "out").execution.kept > 0


def test_a_disk_that_is_full_for_the_last_small_file_needs_room_for_that_alone(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    size = pymerge.merge(recipe, tmp_path / "whole").size

    def refuse(*_: object, **__: object) -> None:
        raise ResourceError("README.md: cannot be written: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pymerge.output.folder.write_card", refuse)
        with pytest.raises(ResourceError, match="README"):
            pymerge.merge(recipe, out)
    assert (out / "model.safetensors").stat().st_size == size
    monkeypatch.setattr("pymerge.output.folder.shutil.disk_usage", lambda _: NearlyFull())
    assert pymerge.merge(recipe, out).execution.kept > 0
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


class NearlyFull:
    """What shutil.disk_usage answers of a disk with room for small files."""

    total, free = 10**9, 20_000


def test_a_disk_that_goes_away_is_reported_and_what_it_holds_is_kept(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hindrance = disks.find_hindrance("ext4")
    if hindrance:
        pytest.skip(hindrance)
    merges.take_small_steps(monkeypatch)
    with disks.mounted("ext4", tmp_path) as folder:
        done = False

        def freeze(progress: Progress) -> None:
            nonlocal done
            if progress.written > progress.total // 3 and not done:
                done = True
                subprocess.run(["mount", "-o", "remount,abort", str(folder)], check=False, capture_output=True)

        with pytest.raises(ResourceError) as caught:
            pymerge.merge(recipe, folder / "out", on_progress=freeze, threads=1)
        assert caught.value.exit_code == 5
        assert str(folder) in str(caught.value)
