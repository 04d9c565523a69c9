"""The bench of kernels: it times the real thing, counts the bytes of the specs, and refuses what is not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pymerge import _core
from pymerge.bench.kernel_cases import CASES, COMPUTE, Case, Inputs, prepare
from pymerge.bench.kernels import KERNELS, bench_kernels, levels
from pymerge.bench.memory import copy_rate, make_out, read_rate
from pymerge.bench.records import machine
from pymerge.cli import app
from pymerge.kernels import SPECS

SIZE = 70_001
WRITING = [case for case in CASES if case.writes]


def find(kernel: str, variant: str) -> Case:
    return next(case for case in CASES if (case.kernel, case.variant) == (kernel, variant))


@pytest.mark.parametrize("case", WRITING, ids=lambda case: f"{case.kernel}-{case.variant}")
@pytest.mark.parametrize("dtype", ["bf16", "f32"])
def test_what_is_timed_is_the_kernel_of_the_spec(case: Case, dtype: str) -> None:
    inputs = Inputs(dtype, 2, SIZE)
    (models,) = case.models([2])
    (call,) = prepare(case, inputs, models)
    call()
    base, *tuned = inputs.arrays
    head = tuned[:models], base if case.base else None
    expected = case.reference()(*head, *case.numbers(models, SIZE, inputs.rules), COMPUTE, inputs.dtype)
    np.testing.assert_array_equal(inputs.out[: expected.nbytes], expected.view(np.uint8))


def test_long_inputs_go_through_the_recycled_buffer_piece_by_piece() -> None:
    inputs = Inputs("f32", 1, 2 * (1 << 20) + 5)
    calls = prepare(find("weighted_sum", "plain"), inputs, 1)
    assert len(calls) == 3
    calls[2]()
    np.testing.assert_array_equal(inputs.out.view(np.float32)[:5], inputs.arrays[1][-5:])


@pytest.mark.parametrize(
    ("kernel", "variant", "models", "itemsize", "moved"),
    [
        ("gram", "plain", 2, 2, (4, 0)),
        ("gram", "task_vectors", 2, 2, (6, 0)),
        ("select", "half", 3, 4, (16, 0)),
        ("row_divergence", "softmax", 1, 2, (4, 0)),
        ("fusion", "threshold", 1, 2, (4, 2)),
        ("weighted_sum", "plain", 3, 4, (12, 4)),
        ("task_merge", "ties", 2, 2, (6, 2)),
    ],
)
def test_bytes_are_those_of_the_passes(
    kernel: str, variant: str, models: int, itemsize: int, moved: tuple[int, int]
) -> None:
    assert find(kernel, variant).bytes_per_element(models, itemsize) == moved


def test_every_kernel_is_timed() -> None:
    # The mask kernel serves the public function mask() alone; merges have their masks inside of other kernels.
    assert set(KERNELS) == {*SPECS} - {"mask"}


@pytest.mark.parametrize("case", [case for case in CASES if not case.writes], ids=lambda c: f"{c.kernel}-{c.variant}")
def test_measures_run_on_whole_tensors(case: Case) -> None:
    inputs = Inputs("bf16", 2, SIZE - 1)
    (call,) = prepare(case, inputs, case.models([2])[0])
    assert call() is not None


def test_ties_thresholds_keep_about_half() -> None:
    inputs = Inputs("bf16", 2, SIZE)
    base, *tuned = (array.astype(np.float32) for array in inputs.arrays)
    for rule, tensor in zip(inputs.rules, tuned, strict=True):
        kept = np.abs(tensor - base).view(np.uint32) > rule[1]
        assert 0.4 < kept.mean() < 0.6


def test_records_add_up_and_the_level_is_what_it_was() -> None:
    before = _core.active_isa()
    found = list(bench_kernels(["gram", "weighted_sum"], ["bf16"], [2], sizes=[SIZE], rounds=2))
    assert _core.active_isa() == before
    assert [(r["isa"], r["variant"]) for r in found] == [
        (level, variant) for level in levels() for variant in ("plain", "task_vectors", "rows", "plain", "rows")
    ]
    for record in found:
        assert record["rate"] == pytest.approx(record["bytes_per_element"] / record["ns"]["median"] * 1e9)
        assert record["share"] == pytest.approx(record["rate"] / record["yardstick_rate"])
        assert record["yardstick"] == ("memcpy" if record["kernel"] == "weighted_sum" else "read")
        assert (record["target"] is not None) == (record["isa"] == "v4" and record["variant"] == "plain")
        assert record["machine"] == machine()
        assert record["ns"]["best"] <= record["ns"]["median"] <= record["ns"]["worst"]


def test_yardsticks_count_what_they_move() -> None:
    inputs = [np.zeros((5 << 20) + 3, np.uint8)]
    out = make_out()
    inputs[0][:] = 7
    assert 1e8 < copy_rate(inputs, out) < 1e13
    assert (out[: (1 << 20) + 3] == 7).all()
    assert 1e8 < read_rate(inputs) < 1e13


@pytest.mark.parametrize(
    ("wrong", "known"),
    [
        ({"kernels": ["grim"]}, ", ".join(KERNELS)),
        ({"dtypes": ["f8"]}, "bf16, f16, f32"),
        ({"isa": ["v9"]}, "generic"),
        ({"models": [0]}, "at least 1"),
    ],
)
def test_what_is_not_there_is_refused_with_the_list(wrong: dict[str, list[str]], known: str) -> None:
    with pytest.raises(ValueError, match=known):
        list(bench_kernels(**wrong))


def test_the_command_prints_a_table_and_keeps_a_history(tmp_path: Path) -> None:
    history = tmp_path / "new" / "history.jsonl"
    options = ["--kernel", "overlap", "--dtype", "bf16", "--models", "2", "--isa", "generic", "--size", "4096"]
    command = ["bench", "kernels", *options, "--rounds", "1", "--history", str(history)]
    human = CliRunner().invoke(app, command)
    assert human.exit_code == 0
    assert [line.split()[0] for line in human.stdout.splitlines()[1:]] == ["kernel", "overlap"]
    for_programs = CliRunner().invoke(app, [*command, "--format", "json"])
    (record,) = json.loads(for_programs.stdout)
    assert (record["kernel"], record["elements"], record["isa"]) == ("overlap", 4096, "generic")
    assert [json.loads(line)["bench"] for line in history.read_text().splitlines()] == ["kernels"] * 2


@pytest.mark.parametrize(
    "wrong",
    [
        ["--kernel", "grim"],
        ["--models", "two"],
        ["--isa", "v9"],
        ["--rounds", "0"],
        ["--backend", "reference"],
        ["--backend", "triton", "--isa", "v3"],
    ],
)
def test_the_command_refuses_nonsense_as_usage(wrong: list[str]) -> None:
    assert CliRunner().invoke(app, ["bench", "kernels", "--size", "64", *wrong]).exit_code == 2
