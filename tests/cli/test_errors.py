"""Every way out of the program is a message for people and an exit code for scripts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import toys
from typer.testing import CliRunner

from pymerge import api, cli
from pymerge.cli import app
from pymerge.errors import (
    BackendError,
    DTypeError,
    FormatError,
    InternalError,
    Location,
    NonFiniteError,
    Problem,
    PymergeError,
    RecipeError,
    ResourceError,
    ShapeError,
)

COMMAND = ["merge", "recipe.yml", "out"]


def run_failing(monkeypatch: pytest.MonkeyPatch, error: BaseException, *options: str) -> tuple[int, str]:
    """Exit code and stderr of a merge that raises `error`."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(api, "merge", fail)
    result = CliRunner().invoke(app, [*COMMAND, *options])
    return result.exit_code, result.stderr


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (RecipeError, 2),
        (FormatError, 3),
        (ShapeError, 3),
        (DTypeError, 3),
        (NonFiniteError, 3),
        (BackendError, 4),
        (ResourceError, 5),
    ],
)
def test_each_error_has_its_exit_code_and_only_its_message(
    monkeypatch: pytest.MonkeyPatch, kind: type[PymergeError], code: int
) -> None:
    assert run_failing(monkeypatch, kind("what, where, what to do")) == (code, "error: what, where, what to do\n")


def test_all_problems_of_a_recipe_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = [Problem("first", Location("r.yml", 3, 5)), Problem("second", hint="try this")]
    assert run_failing(monkeypatch, RecipeError(problems)) == (
        2,
        "error: 2 problems:\n  r.yml:3:5: first\n  second (try this)\n",
    )


def test_an_internal_error_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = run_failing(monkeypatch, InternalError("tile 7 is lost"))
    assert code == 70
    assert "internal error: tile 7 is lost" in text
    assert "Traceback" not in text


@pytest.mark.parametrize(("code", "status"), [(None, 0), (0, 0), (5, 5), ("what went wrong", 1)])
def test_every_way_out_is_a_status(monkeypatch: pytest.MonkeyPatch, code: object, status: int) -> None:
    def leave() -> None:
        raise SystemExit(code)

    monkeypatch.setattr(cli, "app", leave)
    assert cli.run() == status


def test_a_reader_that_left_is_no_traceback() -> None:
    command = f"{sys.executable} -m pymerge methods | true"
    result = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert "Traceback" not in result.stderr


def test_any_other_exception_is_a_bug(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise KeyError("x")

    monkeypatch.setattr(cli, "app", fail)
    assert cli.run() == 70
    assert "KeyError: 'x'" in capsys.readouterr().err


@pytest.mark.parametrize(("environment", "options"), [({"PYMERGE_TRACEBACK": "1"}, []), ({}, ["--verbose"])])
def test_a_traceback_is_printed_on_request(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], options: list[str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code, text = run_failing(monkeypatch, FormatError("damaged"), *options)
    assert code == 3
    assert "Traceback" in text


def test_an_interrupt_is_130_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = run_failing(monkeypatch, KeyboardInterrupt())
    assert code == 130
    assert text.startswith("error: interrupted")


def test_running_out_of_memory_names_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = run_failing(monkeypatch, MemoryError())
    assert code == 5
    assert "--memory" in text


def test_a_wrong_option_is_usage() -> None:
    result = CliRunner().invoke(app, [*COMMAND, "--nonsense"])
    assert result.exit_code == 2
    assert "--nonsense" in result.stderr


class _Stopping:
    def __set_name__(self, owner: type, name: str) -> None:
        raise KeyboardInterrupt


def test_an_interrupt_while_a_class_is_made_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        type("Made", (), {"stopping": _Stopping()})

    monkeypatch.setattr(api, "merge", load)
    result = CliRunner().invoke(app, COMMAND)
    assert result.exit_code == 130
    assert result.stderr.startswith("error: interrupted;")


def test_a_runtime_error_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = run_failing(monkeypatch, RuntimeError("odd"))
    assert code in (1, 70)
    assert "interrupted" not in said


def test_a_size_that_is_none_is_told_with_an_example() -> None:
    for option, example in (
        ("--memory", "such as 2GiB"),
        ("--vram", "such as 2GiB"),
        ("--out-shard-size", "such as 5B"),
    ):
        result = CliRunner().invoke(app, [*COMMAND, option, "much"])
        assert result.exit_code == 2
        assert example in result.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gguf-like", "x.gguf"], '"x.gguf" is followed by GGUF files alone; add --out-format gguf'),
        (["--private"], "add --push user/name"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(here: Path, options: list[str], said: str) -> None:
    toys.write_llama(here / "a")
    (here / "r.yml").write_text('{"merge_method": "passthrough", "models": [{"model": "a"}]}')
    result = CliRunner().invoke(app, ["merge", "r.yml", "out", *options])
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr
    assert not (here / "out").exists()
