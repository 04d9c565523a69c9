"""Where outputs go: places that cannot be are refused, by a merge as by a dry run, which writes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import pytest
import toys
from typer.testing import CliRunner, Result

import pymerge
from pymerge import backends
from pymerge.cli import app
from pymerge.errors import RecipeError, ResourceError
from pymerge.execute import Progress
from pymerge.execute.journal import JOURNAL
from pymerge.output import target

LONG = "x" * 300
FORMATS = ("safetensors", "adapter", "gguf:f32")


@pytest.fixture
def work(here: Path) -> Path:
    """A working folder with models, recipes r.yml and staged.yml, and things that no output can replace."""
    for seed, name in enumerate("ab"):
        toys.write_llama(here / name, seed=seed, layers=2, dtype=ml_dtypes.bfloat16)
    models = [{"model": str(here / name), "parameters": {"weight": 0.5}} for name in "ab"]
    recipe = {"merge_method": "linear", "models": models}
    (here / "r.yml").write_text(json.dumps(recipe))
    last = {"merge_method": "passthrough", "models": [{"model": "one"}]}
    (here / "staged.yml").write_text(f"{json.dumps({'name': 'one', **recipe})}\n---\n{json.dumps(last)}\n")
    (here / "full").mkdir()
    (here / "full" / "thesis.txt").touch()
    (here / "file").touch()
    (here / "circle").symlink_to("circle")
    return here


def merge(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["merge", *map(str, arguments)])


def look(folder: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in (folder, *folder.rglob("*"))}


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
@pytest.mark.parametrize("out", ["a", "file", "circle", "/", "", "file/out", "/proc/x", LONG, f"{LONG}/y", "full"])
def test_a_dry_run_refuses_what_the_merge_refuses(work: Path, out: str, more: list[str]) -> None:
    before = look(work)
    dry = merge("r.yml", out, "--dry-run", *more)
    assert look(work) == before
    if (out, *more) == ("full", "--overwrite"):
        assert dry.exit_code == 0
        return
    assert dry.exit_code in (2, 5), dry.output
    real = merge("r.yml", out, *more)
    assert real.exit_code == dry.exit_code, real.output
    assert look(work) == before


@pytest.mark.parametrize(
    "out", ["a/model.safetensors", "full", "file.safetensors/x.safetensors", f"{LONG}.safetensors"]
)
def test_a_dry_run_refuses_what_a_merge_of_files_refuses(work: Path, out: str) -> None:
    (work / "file").rename(work / "file.safetensors")
    files = [work / name / "model.safetensors" for name in "ab"]
    command = ["merge-files", "linear", *map(str, files), "--weight", "1", "-o", out]
    codes = [CliRunner().invoke(app, [*command, *more]).exit_code for more in (["--dry-run"], [])]
    assert codes[0] == codes[1]
    assert codes[0] in (2, 5)


@pytest.mark.parametrize("out", ["a", "full", "file", LONG])
def test_a_dry_run_refuses_what_a_mixture_refuses(work: Path, out: str) -> None:
    experts = [{"source_model": str(work / name)} for name in "ab"]
    config = {"base_model": str(work / "a"), "gate_mode": "random", "dtype": "bfloat16", "experts": experts}
    (work / "moe.yml").write_text(json.dumps(config))
    before = look(work)
    results = [CliRunner().invoke(app, ["moe", "moe.yml", out, *more]) for more in (["--dry-run"], [])]
    assert results[0].exit_code == results[1].exit_code
    assert results[0].exit_code in (2, 5)
    assert results[0].stderr.splitlines()[-1] == results[1].stderr.splitlines()[-1]
    assert look(work) == before


@pytest.mark.parametrize(
    ("options", "code"), [(["--backend", "triton"], 4), (["--device", "cuda:77"], 4), (["--backend", "cuda"], 4)]
)
def test_a_dry_run_refuses_devices_that_are_not_there(
    work: Path, options: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in backends.DEVICE_BACKENDS:
        monkeypatch.setitem(backends._BACKENDS, name, lambda: "this machine has none")
    for more in (["--dry-run"], []):
        assert merge("r.yml", "out", *options, *more).exit_code == code
    assert not (work / "out").exists()


def test_a_plan_may_be_asked_for_from_the_root_of_the_file_system(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where a container begins; nothing is written there.
    monkeypatch.chdir("/")
    result = CliRunner().invoke(app, ["plan", str(work / "r.yml")])
    assert result.exit_code == 0, result.stderr
    assert merge(str(work / "r.yml"), ".").exit_code == 2


def test_a_dry_run_refuses_a_full_disk_after_it_has_said_what_is_needed(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        total, free = 10**9, 1000

    monkeypatch.setattr("shutil.disk_usage", lambda _: Full())
    dry = merge("r.yml", "out", "--dry-run")
    assert dry.exit_code == 5
    assert "NOT ENOUGH" in dry.stdout
    assert "make room for" in dry.stderr


def test_a_dry_run_knows_an_unfinished_merge(work: Path) -> None:
    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pymerge.merge("r.yml", "out", on_progress=stop)
    journal = {"journal": 1, "identity": {"pymerge": "0.0.1", "method": "linear", "seed": 0}}
    Path("out").mkdir(exist_ok=True)
    Path("out", JOURNAL).write_text(json.dumps(journal) + "\n" + '{"tensor": "cut sho')
    for more in (["--dry-run"], []):
        refused = merge("r.yml", "out", *more)
        assert refused.exit_code == 2
        assert "differs from this one (pymerge's version: was 0.0.1" in refused.stderr
    assert merge("r.yml", "out", "--dry-run", "--restart").exit_code == 0


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "README.md", "pymerge_manifest.json", "pymerge_moe.yml"]
)
def test_a_folder_in_the_place_of_a_file_is_refused_before_anything_is_merged(work: Path, name: str) -> None:
    (work / "out" / name / "x").mkdir(parents=True)
    for more in (["--dry-run"], []):
        refused = merge("r.yml", "out", "--overwrite", *more)
        assert refused.exit_code == 2
        assert f"{Path('out', name)} is a folder" in refused.stderr
    assert [path.name for path in (work / "out").iterdir()] == [name]


@pytest.mark.parametrize("out_format", FORMATS)
def test_a_name_that_is_too_long_is_an_error_in_every_format(work: Path, out_format: str) -> None:
    name = f"{LONG}.gguf" if "gguf" in out_format else LONG
    refused = merge("r.yml", name, "--out-format", out_format)
    assert refused.exit_code in (2, 5)


def test_a_name_that_is_too_long_for_the_folder_of_stages_is_an_error(work: Path) -> None:
    refused = merge("staged.yml", "x" * 253, "--keep-stages")
    assert refused.exit_code == 5
    assert "stages/one cannot be made" in refused.stderr


@pytest.mark.parametrize("recipe", ["r.yml", "staged.yml"])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("out", [".", "./", "..", "../new/."])
def test_the_folder_that_the_command_runs_in_may_be_the_output(
    work: Path, monkeypatch: pytest.MonkeyPatch, out: str, keep: bool, recipe: str
) -> None:
    (work / "new" / "below").mkdir(parents=True)
    monkeypatch.chdir(work / "new" / ("below" if out == ".." else ""))
    # ".." has "below" in it.
    done = merge(work / recipe, out, "--quiet", "--overwrite", *(["--keep-stages"] if keep else []))
    assert done.exit_code == 0, done.output
    assert pymerge.verify(work / "new").status.value == "passed"
    stages = work / "new.stages" / "one" / "config.json"
    assert stages.exists() is (keep and recipe == "staged.yml")


@pytest.mark.parametrize("out", ["", "/", "//", "/."])
def test_no_function_takes_nothing_or_everything_for_an_output(work: Path, out: str) -> None:
    files = [work / name / "model.safetensors" for name in "ab"]
    with pytest.raises(RecipeError, match=r"has no name|is the root"):
        pymerge.merge("r.yml", out, overwrite=True)
    with pytest.raises(RecipeError, match=r"has no name|is the root"):
        pymerge.merge_files("linear", files, out=out, parameters={"weight": 1}, overwrite=True)


@pytest.fixture
def nobody() -> Iterator[None]:
    """Has root, who may write everywhere, be a user who may not."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield
    if root:
        os.seteuid(0)


@pytest.mark.usefixtures("nobody")
def test_a_folder_that_may_not_be_written_to_is_refused() -> None:
    with pytest.raises(ResourceError, match="cannot be written to"):
        target.refuse_place(Path("/usr/out"))


def test_what_is_there_already_is_found_from_any_path(here: Path) -> None:
    assert target.find_existing(here / "a" / "b") == here
    assert target.find_existing(Path("a/b")) == here
    assert target.find_existing(here / LONG) == here
