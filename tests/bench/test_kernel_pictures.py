"""Pictures of kernels: what was recorded is in them, and the same records give the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pymerge.bench.kernel_pictures import draw_all, main
from pymerge.cli import app


def record(kernel: str, elements: int = 1 << 20, **changes: Any) -> dict[str, Any]:
    """One of `bench kernels`, at 10 GB/s of 20."""
    return {
        "bench": "kernels",
        "machine": {"pymerge": "9.9", "processor": "a processor", "cache": 1 << 23},
        "kernel": kernel,
        "variant": "plain",
        "dtype": "bf16",
        "models": 2,
        "isa": "v3",
        "elements": elements,
        "bytes_per_element": 6,
        "rate": 10e9,
        "yardstick": "memcpy",
        "yardstick_rate": 20e9,
        "share": 0.5,
        "target": 0.7,
        "writes": True,
        "operations": 3,
        "peak_rate": 60e9,
        "against": {},
        **changes,
    }


FOUND = [
    record("weighted_sum"),
    record("weighted_sum", 1 << 23, share=0.41),
    record("gram", 1 << 23, yardstick="read", writes=False, target=None, share=0.82),
    record("fusion", 1 << 23, models=1, share=0.33),
]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_there_is_a_picture_of_each_kind(tmp_path: Path) -> None:
    drawn = draw_all(FOUND, tmp_path / "new")
    expected = ["roofline-bf16-2-v3.svg", "shares-bf16-2-v3.svg", "sizes-bf16-2-v3.svg"]
    assert names(tmp_path / "new") == sorted(path.name for path in drawn) == expected


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (
            "shares",
            ["weighted_sum, plain", "fusion, plain", "0.41", "0.82", "0.33", "of copying", "of reading", "target"],
        ),
        ("roofline", ["weighted_sum, plain", "copying, 20 GB/s", "reading, 20 GB/s", "matrix products, 60 billion/s"]),
        ("sizes", ["weighted_sum, plain", "gram, plain", "4 MiB", "the last cache"]),
    ],
)
def test_a_picture_says_what_it_shows_as_text(tmp_path: Path, kind: str, words: list[str]) -> None:
    draw_all(FOUND, tmp_path)
    drawn = (tmp_path / f"{kind}-bf16-2-v3.svg").read_text()
    for word in [*words, "pymerge 9.9, a processor, 1 thread", "bf16, 2 models, v3"]:
        assert f">{word}<" in drawn, word


def test_shares_are_those_of_the_largest_size(tmp_path: Path) -> None:
    draw_all(FOUND, tmp_path)
    assert ">0.50<" not in (tmp_path / "shares-bf16-2-v3.svg").read_text()


def test_each_dtype_number_of_models_and_level_has_its_own(tmp_path: Path) -> None:
    others = [record("gram", dtype="f32"), record("gram", models=3), record("gram", isa="v4")]
    draw_all([*FOUND, *others], tmp_path)
    shares = [name for name in names(tmp_path) if name.startswith("shares")]
    assert shares == [f"shares-{one}.svg" for one in ("bf16-2-v3", "bf16-2-v4", "bf16-3-v3", "f32-2-v3")]


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").write_text("\n".join(map(json.dumps, FOUND)))
    for folder in ("a", "b"):
        main([str(tmp_path / "h.jsonl"), str(tmp_path / folder)])
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_history_without_kernels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").write_text('{"bench": "merge"}\n')
    with pytest.raises(SystemExit, match="no record of a kernel to draw"):
        main([str(tmp_path / "h.jsonl"), str(tmp_path / "a")])


def test_the_command_draws_what_it_timed_at_every_size(tmp_path: Path) -> None:
    options = ["--kernel", "weighted_sum", "--dtype", "bf16", "--models", "2", "--isa", "generic", "--rounds", "1"]
    more = ["--size", "1024,4096", "--against", "numpy", "--pictures", str(tmp_path / "p")]
    answer = CliRunner().invoke(app, ["bench", "kernels", *options, *more])
    assert answer.exit_code == 0, answer.output
    assert [line.split()[4] for line in answer.stdout.splitlines()[1:]] == [
        "elements",
        "1,024",
        "1,024",
        "4,096",
        "4,096",
    ]
    assert names(tmp_path / "p") == [f"{kind}-bf16-2-generic.svg" for kind in ("roofline", "shares", "sizes")]
