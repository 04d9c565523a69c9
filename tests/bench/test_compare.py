"""Runs of a history against each other: the right ones are found, and noise is not called a difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pymerge.bench.compare import compare_runs, judge, show
from pymerge.bench.spread import Spread
from pymerge.cli import app

MACHINE = {"processor": "P", "isa": "v3"}
TIMES = ("2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00", "2026-02-01T00:00:00+00:00")


def record(time: str, values: list[float], **changes: Any) -> dict[str, Any]:
    spread = Spread.of(values).to_json()
    facts = {"bench": "io", "time": time, "machine": MACHINE, "rounds": len(values), "bytes": 7}
    return {**facts, "operation": "read", "method": "direct", "cache": "cold", "ms": spread, **changes}


def write(folder: Path, *found: dict[str, Any]) -> Path:
    path = folder / "history.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in found))
    return path


def compare(folder: Path, before: list[float], after: list[float]) -> str:
    found = compare_runs(write(folder, record(TIMES[0], before), record(TIMES[1], after)))
    return str(found["rows"][0]["verdict"])


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ([5, 6, 7, 8], [1, 2, 3, 4], "faster"),
        ([1, 2, 3, 4], [5, 6, 7, 8], "slower"),
        ([1, 2, 3, 6], [5, 7, 8, 9], "within noise"),
        ([1, 2, 3], [5, 6, 7], "too few rounds"),
        ([1, 2, 3], [5, 6, 7, 8, 9], "too few rounds"),
        ([1] * 9 + [99], [5] * 10, "slower"),
        ([1] * 8 + [99], [5] * 9, "within noise"),
    ],
)
def test_a_difference_is_one_that_no_round_contradicts(
    tmp_path: Path, before: list[float], after: list[float], verdict: str
) -> None:
    assert compare(tmp_path, before, after) == verdict


@given(st.lists(st.floats(1, 100), min_size=1, max_size=20), st.lists(st.floats(1, 100), min_size=1, max_size=20))
def test_the_other_way_round_faster_is_slower(first: list[float], second: list[float]) -> None:
    rounds = min(len(first), len(second))
    there, back = judge(Spread.of(first), Spread.of(second), rounds), judge(Spread.of(second), Spread.of(first), rounds)
    assert {"faster": "slower", "slower": "faster"}.get(there, there) == back


@pytest.mark.parametrize("rounds", [4, 5, 9, 10, 20])
def test_of_what_is_the_same_few_verdicts_are_wrong(rounds: int) -> None:
    random = np.random.default_rng(0)
    draws = np.exp(random.standard_normal((2000, 2, rounds)))
    wrong = sum(judge(Spread.of(list(a)), Spread.of(list(b)), rounds) != "within noise" for a, b in draws)
    assert wrong / len(draws) < 0.05


def test_runs_are_found_by_number_and_by_the_beginning_of_their_time(tmp_path: Path) -> None:
    history = write(tmp_path, *(record(time, [at + 1.0] * 4) for at, time in enumerate(TIMES)))
    for before, after in (("1", "3"), ("-3", "-1"), ("2026-01-01", "2026-02")):
        found = compare_runs(history, before, after)
        assert (found["before"], found["after"], found["rows"][0]["ratio"]) == (TIMES[0], TIMES[2], 3)
    assert compare_runs(history)["before"] == TIMES[1]


@pytest.mark.parametrize(
    ("run", "text"), [("0", "no run"), ("4", "no run"), ("2027", "no run"), ("2026-01", "several")]
)
def test_a_run_that_there_is_not_is_refused_with_those_there_are(tmp_path: Path, run: str, text: str) -> None:
    history = write(tmp_path, *(record(time, [1.0]) for time in TIMES))
    with pytest.raises(ValueError, match=f"{text}.*{TIMES[2][:10]}"):
        compare_runs(history, run)


@pytest.mark.parametrize("text", ["{", "[1]", "nonsense"])
def test_a_file_that_is_no_history_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(ValueError, match="no file of JSON lines"):
        compare_runs(tmp_path / "file")


def test_what_only_one_run_has_and_another_machine_are_told(tmp_path: Path) -> None:
    history = write(
        tmp_path,
        record(TIMES[0], [1.0] * 4),
        record(TIMES[0], [1.0] * 4, method="mapped"),
        record(TIMES[1], [1.0] * 4, machine={**MACHINE, "isa": "v4"}),
        record(TIMES[1], [1.0] * 4, method="buffered", ms=None),
    )
    found = compare_runs(history)
    assert found["only"] == ["read mapped cold 7"]
    assert found["machine"] == {"isa": ["v3", "v4"]}
    lines: list[str] = []
    show(found, lines.append)
    assert lines[1] == "other machine: isa was v3, is v4"
    assert lines[-1] == "in one of them only: read mapped cold 7"


def test_every_bench_that_keeps_a_history_can_be_compared(tmp_path: Path) -> None:
    spread = Spread.of([1.0] * 4).to_json()
    facts = {"machine": MACHINE, "rounds": 4}
    kinds = [
        {"bench": "kernels", "kernel": "gram", "variant": "plain", "dtype": "bf16", "models": 2, "isa": "v3",
         "ns": spread},
        {"bench": "recipe", "recipe": "r.yml", "options": ["--threads", "2"], "cold": True, "ms": spread,
         "stages": {"plan": spread}},
        {"bench": "merge", "method": "ties", "command": "pymerge", "cold": False, "wall": spread},
    ]  # fmt: skip
    history = write(tmp_path, *({**facts, **kind, "time": time} for time in TIMES[:2] for kind in kinds))
    assert [row["name"] for row in compare_runs(history)["rows"]] == [
        "gram plain bf16 2 v3", "r.yml --threads 2 cold", "r.yml --threads 2 cold plan", "ties pymerge",
    ]  # fmt: skip


def test_the_command_prints_a_table(tmp_path: Path) -> None:
    history = write(tmp_path, record(TIMES[0], [2.0] * 4), record(TIMES[1], [1.0] * 4))
    result = CliRunner().invoke(app, ["bench", "compare", str(history)])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].endswith("0.500  faster")
    answer = CliRunner().invoke(app, ["bench", "compare", str(history), "--format", "json"])
    assert json.loads(answer.stdout)["rows"][0]["verdict"] == "faster"
    assert CliRunner().invoke(app, ["bench", "compare", str(tmp_path / "none")]).exit_code == 2


def test_sizes_tell_apart_only_what_a_run_timed_at_several(tmp_path: Path) -> None:
    def kernel(time: str, elements: int) -> dict[str, Any]:
        names = {"kernel": "gram", "variant": "plain", "dtype": "bf16", "models": 2, "isa": "v3"}
        spread = Spread.of([1.0, 2.0]).to_json()
        return {**record(time, [1.0]), "bench": "kernels", **names, "ns": spread, "elements": elements}

    one = compare_runs(write(tmp_path, kernel(TIMES[0], 4096), kernel(TIMES[1], 8192)))
    assert [row["name"] for row in one["rows"]] == ["gram plain bf16 2 v3"]
    both = [kernel(time, elements) for time in TIMES[:2] for elements in (1024, 4096)]
    several = compare_runs(write(tmp_path, *both))
    assert [row["name"] for row in several["rows"]] == ["gram plain bf16 2 v3 1,024", "gram plain bf16 2 v3 4,096"]
