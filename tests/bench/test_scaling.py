"""How merges grow: each part's records are about what was run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pymerge.bench.checkpoints import SIZES
from pymerge.bench.scaling import Options, main, measure_planning


def test_parts_record_times_with_their_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results.jsonl"
    arguments = ["--sizes", "tiny", "--methods", "linear", "--rounds", "1", "--out", str(results)]
    main([str(tmp_path), "--parts", "size,threads,first", *arguments])
    size, threads, first = (json.loads(line) for line in results.read_text().splitlines())
    assert (size["part"], size["what"], size["ratio"], size["met"]) == ("size", "linear tiny", 1.0, True)
    weights = next(tmp_path.glob("tiny-*/model-0/model.safetensors")).stat().st_size
    assert size["bytes"] == 3 * weights
    assert size["value"]["median"] < size["whole_process"]["median"]
    assert threads["ratio"] == pytest.approx(threads["one_thread"]["median"] / threads["value"]["median"])
    assert threads["met"] is (threads["ratio"] >= 1.8)
    assert 0.05 < first["value"]["median"] < 5
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_planning_is_timed_on_headers_alone(tmp_path: Path) -> None:
    options = Options(tmp_path, ["tiny"], ["linear"], rounds=1, threads=1, plan_shape=SIZES["0.3B"])
    (record,) = measure_planning(options)
    assert record["what"] == f"2 models, {len(SIZES['0.3B'].tensors())} tensors in 80 files each"
    assert record["bytes"] > 2 * 600_000_000
    assert record["ratio"] == record["value"]["median"]


@pytest.mark.parametrize("wrong", [["--parts", "size,speed"], ["--sizes", "2B"], ["--methods", "tise"]])
def test_an_unknown_name_is_refused_with_the_list(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(wrong)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert any(known in said for known in ("size, threads, plan, first", "1.1B", "passthrough"))
