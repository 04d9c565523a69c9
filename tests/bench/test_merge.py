"""Whole merges against the floor: records hold what they say, and nonsense is refused beforehand."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

import pymerge
from pymerge.bench.checkpoints import SIZES, write_models
from pymerge.bench.floor import Floor
from pymerge.bench.merge import OURS, describe, fill_template, main, parse_peers
from pymerge.bench.process import Usage
from pymerge.bench.recipes import METHODS, choose, make_recipe, models_needed
from pymerge.bench.spread import Spread

TINY = SIZES["tiny"]
USAGE = Usage(
    wall=1.0,
    cpu=1.5,
    anonymous=10,
    file_backed=20,
    disk_read=0,
    disk_written=0,
    first_write=0.3,
    stdout=json.dumps(
        {
            "execution": {
                "seconds": 0.6,
                "read": 8,
                "written": 4,
                "limit": "reading",
                "measure_seconds": 0.2,
                "fill_seconds": 0.5,
            },
            "stages": {"plan": 0.1, "merge": 0.6, "finish": 0.1},
        }
    ),
)


def some_floor(tmp_path: Path) -> Floor:
    file = tmp_path / "weights"
    file.write_bytes(bytes(4096))
    floor = Floor([file], file, tmp_path)
    floor.reads, floor.writes = [0.4, 0.2, 0.3], {"buffered": [1.0, 0.5, 0.9], "direct": [0.8, 0.3, 0.6]}
    return floor


def test_a_spread_is_the_five_numbers() -> None:
    spread = Spread.of([5.0, 1.0, 3.0, 2.0, 4.0])
    assert spread == Spread(median=3.0, best=1.0, low=2.0, high=4.0, worst=5.0)
    assert spread.over(2.0).worst == 2.5
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0, 7.0, 7.0)
    assert spread.show(1) == "3.0 (1.0..5.0)"


def test_the_floor_is_the_best_read_plus_the_best_write(tmp_path: Path) -> None:
    floor = some_floor(tmp_path)
    assert floor.best == pytest.approx(0.2 + 0.3)
    assert floor.median == pytest.approx(0.3 + 0.6)
    floor.writes["cp"] = [0.1, 0.1, 0.1]
    assert floor.best == pytest.approx(0.2 + 0.1)
    assert floor.synced == pytest.approx(0.2 + 0.3)


def test_a_round_of_the_floor_times_everything_once_and_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(bytes(100_000))
    floor = Floor([file], file, tmp_path, cold=True)
    floor.measure()
    assert [len(times) for times in (floor.reads, floor.together, *floor.writes.values())] == [1] * 5
    assert list(tmp_path.iterdir()) == [file]


def test_ratios_are_wall_over_the_best_floor_and_peers_over_ours(tmp_path: Path) -> None:
    usages = [dataclasses.replace(USAGE, wall=wall) for wall in (1.0, 2.0, 1.5)]
    record = describe("ties", usages, some_floor(tmp_path), ours=0.5)
    assert (record["ratio"]["median"], record["ratio"]["best"], record["ratio"]["worst"]) == (3.0, 2.0, 4.0)
    assert record["synced_ratio"]["median"] == pytest.approx(1.5 / (0.2 + 0.3))
    assert record["read_ratio"]["median"] == pytest.approx(1.5 / 0.3)
    assert record["times_ours"] == pytest.approx(3.0)
    assert record["target"] == 1.3


def test_stages_add_up_to_the_wall_time(tmp_path: Path) -> None:
    record = describe("linear", [USAGE], some_floor(tmp_path), ours=1.0)
    assert record["stages"] == pytest.approx({"start": 0.2, "plan": 0.1, "merge": 0.6, "finish": 0.1})
    assert record["workers"] == {"measure": 0.2, "fill": 0.5}
    assert (record["read"], record["written"], record["limit"], record["first_write"]) == (8, 4, "reading", 0.3)


def test_a_command_without_a_report_has_no_stages(tmp_path: Path) -> None:
    for stdout in ("", "merged!", "[1]"):
        record = describe("linear", [dataclasses.replace(USAGE, stdout=stdout)], some_floor(tmp_path), ours=1.0)
        assert "stages" not in record


def test_a_run_records_every_method_and_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, picture = tmp_path / "results.jsonl", tmp_path / "results.svg"
    peer = "copy=sh -c 'mkdir {out} && cp {recipe} {out}'"
    broken = "broken=false {recipe} {out}"
    arguments = [str(tmp_path), "--size", "tiny", "--methods", "linear,ties", "--rounds", "2", "--threads", "1"]
    arguments += ["--cold", "--peer", peer, "--peer", broken, "--out", str(results), "--picture", str(picture)]
    main(arguments)
    found = [json.loads(line) for line in results.read_text().splitlines()]
    assert [(r["method"], r["command"]) for r in found] == [
        (method, command) for method in ("linear", "ties") for command in (OURS, "copy")
    ]
    linear, copied, ties, _ = found
    for record in found:
        assert record["ratio"]["median"] == pytest.approx(record["wall"]["median"] / record["floor"]["best"])
        assert (record["cold"], record["rounds"], record["size"], record["threads"]) == (True, 2, "tiny", 1)
    assert linear["input_bytes"] == 2 * linear["output_bytes"]
    assert ties["input_bytes"] == 3 * ties["output_bytes"]
    weights = 2 * sum(math.prod(dims) for dims in TINY.tensors().values())
    assert (linear["read"], ties["read"]) == (2 * weights, 6 * weights)
    assert weights < linear["written"] < weights + 10_000  # a header comes with it
    assert linear["times_ours"] == 1.0
    assert copied["times_ours"] == pytest.approx(copied["wall"]["median"] / linear["wall"]["median"])
    assert linear["anonymous"] > 1 << 20
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 1 + len(found)
    assert "linear: broken is left out: false" in said.err
    assert "ties" in picture.read_text()
    assert not (tmp_path / "tiny-2-256-bf16" / "out").exists()


@pytest.mark.parametrize("name", choose(None))
def test_every_recipe_of_the_table_can_be_planned(name: str, tmp_path: Path) -> None:
    models = write_models(tmp_path, TINY, models_needed([name]))
    recipe, used = make_recipe(name, models, TINY.layers, "bf16")
    plan = pymerge.plan(recipe)
    assert plan.method.name == METHODS[name].method
    assert {Path(source.path).parent for task in plan.tasks for source in task.sources} == set(used)


def refuse(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    return capsys.readouterr().err


def test_an_unknown_method_is_refused_with_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    said = refuse(["--methods", "linear,tise"], capsys)
    assert "'tise'" in said
    assert all(name in said for name in choose(None))


@pytest.mark.parametrize(
    "peer", ["cp {recipe} {out}", "cp=cp {recipe}", "=cp {recipe} {out}", "pymerge=x {recipe} {out}"]
)
def test_a_peer_without_name_or_places_is_refused(peer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "must be NAME=COMMAND" in refuse(["--peer", peer], capsys)


def test_a_template_is_split_before_paths_are_put_in() -> None:
    assert parse_peers(["a=b {recipe} {out}"]) == {"a": "b {recipe} {out}"}
    words: list[Any] = fill_template("tool --from={recipe} {out}", Path("my recipe.yml"), Path("o"))
    assert words == ["tool", "--from=my recipe.yml", "o"]
