"""The picture: everything recorded is in it, and the same records give the same bytes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pymerge.bench.picture import draw, main


def record(method: str, command: str, median: float) -> dict[str, Any]:
    ratio = {"median": median, "best": median * 0.9, "low": median, "high": median, "worst": median * 1.1}
    return {"bench": "merge", "method": method, "command": command, "ratio": ratio, "target": 1.3, "cold": False}


FOUND = [record(m, c, r) for m, c, r in (("ties", "pymerge", 1.24), ("ties", "peer", 9.87), ("slerp", "pymerge", 0.95))]


def test_the_picture_names_methods_commands_and_medians_as_text(tmp_path: Path) -> None:
    draw(FOUND, tmp_path / "a.svg", title="a run")
    drawn = (tmp_path / "a.svg").read_text()
    for word in ("ties", "slerp", "pymerge", "peer", "1.24", "9.87", "0.95", "floor", "target", "a run"):
        assert f">{word}<" in drawn, word


def test_the_same_records_give_the_same_clean_bytes(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, FOUND)))
    for name in ("a.svg", "b.svg"):
        main([str(tmp_path / "r.jsonl"), str(tmp_path / name)])
    drawn = (tmp_path / "a.svg").read_text()
    assert drawn == (tmp_path / "b.svg").read_text()
    assert all(line == line.rstrip() for line in drawn.splitlines())


def test_of_records_of_one_merge_the_last_counts(tmp_path: Path) -> None:
    draw([*FOUND, record("slerp", "pymerge", 0.77)], tmp_path / "a.svg")
    drawn = (tmp_path / "a.svg").read_text()
    assert ">0.77<" in drawn
    assert ">0.95<" not in drawn


def test_a_png_can_be_drawn_too(tmp_path: Path) -> None:
    draw(FOUND, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"bench": "kernels"}\n')
    with pytest.raises(SystemExit, match="no record of a merge"):
        main([str(tmp_path / "r.jsonl"), str(tmp_path / "a.svg")])


def test_a_missing_matplotlib_is_said_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit, match=r"pip install 'pymerge\[bench\]'"):
        draw(FOUND, tmp_path / "a.svg")
