"""Masks that a measure keeps for the combine: the same bytes, and really used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from execute.merges import forced, levels

from pymerge import _core
from pymerge.backends.calls import flatten_rule
from pymerge.ops import KEEP_ALL, KEEP_NONE, Bernoulli, RankBernoulli

COUNT = 3 * (1 << 18) + 777
ROW = 3000
RULES = [
    flatten_rule(rule)
    for rule in (RankBernoulli(0.4, 0.3, 1, ROW), Bernoulli(30_000, 2), KEEP_ALL, Bernoulli(65_536, 3), KEEP_NONE)
]


def merge(folder: Path, masks: int, deltas: list[Any], *, later: Any = None, dtype: str = "F32") -> bytes:
    """Measure, then combine; in between the first tensor's elements become those of `later`."""
    engine = _core.Engine(2, 4096, 16, 1, False, True, masks=masks)
    compute = "float64" if dtype == "F64" else "float32"
    first = deltas[0].copy()
    tensors = [_core.Tensor.from_buffer(delta, dtype) for delta in (first, *deltas[1:])]
    base = _core.Tensor.from_buffer(np.zeros_like(first), dtype)
    rules = RULES[: len(deltas)]
    engine.measure_masked_sum(0, tensors, base, compute, rules, "l1")
    while not engine.wait(1.0):
        pass
    if later is not None:
        first[:] = later
    path = folder / "out"
    engine.open_shard(f"{path}.partial", str(path), [(0, first.nbytes)])
    weights = [1.0] * len(deltas)
    combine = engine.combine_task_merge(
        tensors, base, compute, dtype, rules, weights, "none", [], False, 1.0, [], [], False
    )
    engine.fill_combine(0, 0, combine)
    while not engine.status()["shards_finished"]:
        engine.wait(1.0)
    engine.stop()
    return path.read_bytes()


@pytest.fixture(params=levels())
def level(request: pytest.FixtureRequest) -> Any:
    """One instruction-set level, in force during the test."""
    with forced(request.param):
        yield request.param


@pytest.mark.parametrize(("dtype", "models"), [("F32", 2), ("F32", 5), ("F64", 5)])
def test_bytes_do_not_depend_on_what_is_kept(level: str, tmp_path: Path, dtype: str, models: int) -> None:
    random = np.random.default_rng(0)
    kind = np.float64 if dtype == "F64" else np.float32
    deltas = [random.standard_normal(COUNT).astype(kind) for _ in range(models)]
    # None, the first one, all of them.
    made = {merge(tmp_path, size, deltas, dtype=dtype) for size in (0, COUNT // 8 + 2000, 1 << 30)}
    assert len(made) == 1


def test_a_kept_mask_is_not_drawn_again(tmp_path: Path) -> None:
    """Ranks look at values: with values reversed after the measure, only a kept mask is the old one."""
    values = np.arange(1, COUNT + 1, dtype=np.float32)
    kept, again = (
        np.frombuffer(merge(tmp_path, size, [values], later=values[::-1]), np.float32) != 0 for size in (1 << 20, 0)
    )
    before = np.frombuffer(merge(tmp_path, 0, [values]), np.float32) != 0
    assert np.array_equal(kept, before)
    assert not np.array_equal(again, before)


def test_what_has_no_room_is_drawn_again(tmp_path: Path) -> None:
    values = np.arange(1, COUNT + 1, dtype=np.float32)
    small = np.frombuffer(merge(tmp_path, COUNT // 8, [values], later=values[::-1]), np.float32)
    assert np.array_equal(small, np.frombuffer(merge(tmp_path, 0, [values], later=values[::-1]), np.float32))
