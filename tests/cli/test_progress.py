"""The progress bar appears for people only, and fits a terminal."""

from __future__ import annotations

import sys

import pytest

from pymerge.cli.progress import describe, shorten, show_progress
from pymerge.execute.values import Progress

NOW = Progress(seconds=2.0, read=6 * 10**9, written=10**9, total=4 * 10**9, tensor="model.layers.0.mlp.up_proj.weight")


def test_it_tells_bytes_and_both_speeds() -> None:
    assert describe(NOW) == "1 GB of 4 GB, in 3 GB/s, out 500 MB/s"


def test_the_first_moment_divides_by_nothing() -> None:
    assert "in 0 bytes/s" in describe(Progress(0.0, 0, 0, 10, ""))


@pytest.mark.parametrize(("visible", "terminal"), [(True, False), (False, True), (False, False)])
def test_nothing_is_shown_without_a_terminal_or_when_not_wanted(
    monkeypatch: pytest.MonkeyPatch, visible: bool, terminal: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with show_progress(visible=visible) as on_progress:
        assert on_progress is None


def test_a_terminal_of_80_columns_shows_numbers_and_the_end_of_the_tensor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with show_progress(visible=True) as on_progress:
        assert on_progress is not None
        on_progress(NOW)
    shown = capsys.readouterr().err
    assert "25 % 1 GB of 4 GB, in 3 GB/s, out 500 MB/s" in shown
    assert "up_proj" in shown


@pytest.mark.parametrize(
    ("width", "text"), [(12, "model.weight"), (11, "…del.weight"), (8, "….weight"), (7, ""), (-3, "")]
)
def test_a_name_gives_way_from_its_start(width: int, text: str) -> None:
    assert shorten("model.weight", width) == text
