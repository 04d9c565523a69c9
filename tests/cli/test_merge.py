"""What `pymerge merge` passes on, prints and accepts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pymerge import api
from pymerge.cli import app
from pymerge.cli.options import PEER_OPTIONS
from pymerge.execute.values import ExecutionReport
from pymerge.output import MergeReport

REPORT = MergeReport(
    folder=Path("out"),
    method="ties",
    tensors=10,
    copied=2,
    layers=4,
    shards=("model.safetensors",),
    size=10**9,
    extras=(),
    warnings=("mind the gap",),
    execution=ExecutionReport(
        seconds=2.0,
        cpu_seconds=3.0,
        read=4 * 10**9,
        written=10**9,
        copied=2,
        shared=5 * 10**8,
        kept=0,
        peak_anonymous=10**8,
        peak_resident=10**9,
        measure_seconds=1.0,
        fill_seconds=2.0,
        limit="reading",
        direct=True,
        nonfinite={"t": 1},
    ),
    memory=2 * 10**9,
)


class Recorder:
    """Stands for `api.merge` and remembers how it was called."""

    def __init__(self) -> None:
        self.arguments: dict[str, Any] = {}

    def __call__(self, recipe: str, out: Path, **settings: Any) -> MergeReport:
        self.arguments = {"recipe": recipe, "out": out, **settings}
        return REPORT


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """`api.merge`, replaced."""
    recorder = Recorder()
    monkeypatch.setattr(api, "merge", recorder)
    return recorder


def run(*arguments: str) -> Any:
    """A successful run of `pymerge merge`."""
    result = CliRunner().invoke(app, ["merge", *arguments])
    assert result.exit_code == 0, result.stderr
    return result


def test_a_command_from_a_published_article_runs_unchanged(recorder: Recorder) -> None:
    command = "config.yaml merge --copy-tokenizer --allow-crimes --out-shard-size 1B --lazy-unpickle"
    result = run(*command.split())
    expected = {
        "recipe": "config.yaml",
        "out": Path("merge"),
        "copy_tokenizer": True,
        "allow_crimes": True,
        "shard_size": 10**9,
        "backend": "auto",
        "seed": 0,
        "threads": None,
        "memory": None,
    }
    assert expected.items() <= recorder.arguments.items()
    assert result.stderr.startswith("--lazy-unpickle has no effect: ")


def test_defaults_are_those_of_the_api(recorder: Recorder) -> None:
    import inspect

    run("r.yml", "out")
    settings = {name: p.default for name, p in inspect.signature(api.plan).parameters.items() if name != "recipe"}
    for name, value in {**settings, "shard_size": api.SHARD_SIZE, "overwrite": False}.items():
        assert recorder.arguments[name] == value, name


@pytest.mark.parametrize("option", PEER_OPTIONS, ids=lambda option: option.name)
def test_an_option_without_effect_says_so_once(recorder: Recorder, option: Any) -> None:
    result = run("r.yml", "out", option.name, *([] if option.flag else ["1"]))
    assert result.stderr.count(f"{option.name} has no effect: {option.reason}") == 1


def test_the_negative_form_is_named_as_it_was_given(recorder: Recorder) -> None:
    assert "--no-safe-serialization has no effect" in run("r.yml", "out", "--no-safe-serialization").stderr


def test_nothing_is_said_about_options_that_were_not_given(recorder: Recorder) -> None:
    assert "has no effect" not in run("r.yml", "out").stderr


@pytest.mark.parametrize(
    ("options", "backend"),
    [
        ([], "auto"),
        (["--cuda"], "cuda"),
        (["--gpu-rich"], "cuda"),
        (["--device", "cuda:0"], "cuda"),
        (["--device", "cpu"], "cpu"),
        (["--cuda", "--backend", "cpu"], "cpu"),
        (["--backend", "triton"], "triton"),
    ],
)
def test_the_ways_to_choose_a_backend(recorder: Recorder, options: list[str], backend: str) -> None:
    run("r.yml", "out", *options)
    assert recorder.arguments["backend"] == backend


def test_devices_and_their_memory(recorder: Recorder) -> None:
    run("r.yml", "out", "--device", "cuda:0, cuda:1", "--vram", "2GiB", "--backend", "triton")
    assert recorder.arguments["backend"] == "triton"
    assert recorder.arguments["devices"] == ("cuda:0", "cuda:1")
    assert recorder.arguments["vram"] == 2 << 30


def test_an_unknown_device_is_refused(recorder: Recorder) -> None:
    result = CliRunner().invoke(app, ["merge", "r.yml", "out", "--device", "xpu"])
    assert result.exit_code == 2
    assert "xpu" in result.stderr


@pytest.mark.parametrize("name", ["--seed", "--random-seed"])
def test_both_names_of_the_seed(recorder: Recorder, name: str) -> None:
    run("r.yml", "out", name, "42")
    assert recorder.arguments["seed"] == 42


@pytest.mark.parametrize("name", ["-j", "--threads", "--num-threads"])
def test_all_names_of_the_threads(recorder: Recorder, name: str) -> None:
    run("r.yml", "out", name, "3")
    assert recorder.arguments["threads"] == 3


def test_memory_is_passed_in_bytes(recorder: Recorder) -> None:
    run("r.yml", "out", "--memory", "2GiB")
    assert recorder.arguments["memory"] == 2 << 30


@pytest.mark.parametrize(("options", "shares"), [([], True), (["--reflink"], True), (["--no-reflink"], False)])
def test_disk_space_is_shared_unless_that_is_refused(recorder: Recorder, options: list[str], shares: bool) -> None:
    result = run("r.yml", "out", *options)
    assert recorder.arguments["reflink"] == shares
    assert "500 MB of it shared with the inputs" in result.stderr


def test_the_hubs_cache_and_where_the_result_goes_are_passed_on(recorder: Recorder) -> None:
    run("r.yml", "out", "--transformers-cache", "cache", "--push", "me/merged", "--private")
    assert {"cache": Path("cache"), "push": "me/merged", "private": True}.items() <= recorder.arguments.items()


def test_a_wrong_size_is_refused_before_anything_runs(recorder: Recorder) -> None:
    result = CliRunner().invoke(app, ["merge", "r.yml", "out", "--out-shard-size", "big"])
    assert result.exit_code == 2
    assert recorder.arguments == {}


def test_the_folder_is_the_result_and_the_summary_is_not(recorder: Recorder) -> None:
    result = run("r.yml", "out")
    assert result.stdout == "out\n"
    for part in ("warning: mind the gap", "ties: 10 tensors (2 copied)", "read 2 GB/s", "bound by reading"):
        assert part in result.stderr
    assert "t: 1 value not finite" in result.stderr


def test_json_is_one_document_on_stdout(recorder: Recorder) -> None:
    report = json.loads(run("r.yml", "out", "--format", "json").stdout)
    assert (report["folder"], report["execution"]["limit"]) == ("out", "reading")


@pytest.mark.parametrize("options", [["--quiet"], ["--format", "quiet"]])
def test_quiet_is_silent(recorder: Recorder, options: list[str]) -> None:
    result = run("r.yml", "out", *options)
    assert (result.stdout, result.stderr) == ("", "")
