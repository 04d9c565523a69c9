"""Benchmark checkpoints: real files of the shapes they claim, the same every time; stand-ins without weight."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import pymerge
from pymerge.bench.checkpoints import SIZES, main, shape_of, write_models

TINY = SIZES["tiny"]


def test_a_model_has_the_tensors_of_its_shape_and_is_the_same_every_time(tmp_path: Path) -> None:
    first, second = (write_models(tmp_path / name, TINY, 1, "f16")[0] for name in ("a", "b"))
    tensors = load_file(first / "model.safetensors")
    assert {name: tensor.shape for name, tensor in tensors.items()} == TINY.tensors()
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_fine_tunes_are_near_their_base_and_not_it(tmp_path: Path) -> None:
    base, tuned = (
        load_file(path / "model.safetensors")["lm_head.weight"] for path in write_models(tmp_path, TINY, 2, "f32")
    )
    assert 0.0015 < np.abs(tuned - base).mean() / np.sqrt(2 / np.pi) < 0.0025
    assert 0.015 < base.std() < 0.025


def test_models_that_are_there_are_kept(tmp_path: Path) -> None:
    (path,) = write_models(tmp_path, TINY, 1)
    before = (path / "model.safetensors").stat().st_mtime_ns
    write_models(tmp_path, TINY, 2)
    assert (path / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(("size", "billions"), [("0.3B", 0.3), ("1.1B", 1.1), ("3B", 3.0), ("8B", 8.0), ("70B", 69.0)])
def test_a_size_has_about_the_parameters_of_its_name(size: str, billions: float) -> None:
    count = sum(int(np.prod(dims)) for dims in shape_of(size).tensors().values())
    assert count / 1e9 == pytest.approx(billions, rel=0.05)


def test_layers_and_vocabulary_replace_those_of_the_size() -> None:
    shape = shape_of("70B", layers=2, vocab=128256)
    assert (shape.layers, shape.vocab, shape.hidden) == (2, 128256, 8192)


def test_a_stand_in_plans_like_a_model_and_takes_no_room(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path), "--size", "0.3B", "--models", "2", "--shards", "4", "--stand-in"])
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    files = sorted(paths[0].glob("*.safetensors"))
    assert len(files) == 4
    assert sum(file.stat().st_size for file in files) > 500_000_000
    assert sum(file.stat().st_blocks * 512 for file in files) < 1_000_000
    plan = pymerge.plan(
        {"merge_method": "linear", "models": [{"model": str(p), "parameters": {"weight": 1}} for p in paths]}
    )
    assert len(plan.tasks) == len(SIZES["0.3B"].tensors())
