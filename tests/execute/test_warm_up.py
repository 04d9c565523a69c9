"""After a warm-up nothing is left to compile for the tasks of a merge."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from execute.merges import make_recipe, random_tensors, write_models
from triton.runtime.jit import JITFunction

import pymerge
from pymerge.backends.hosted import HostedOps
from pymerge.backends.triton import TritonOps
from pymerge.execute.warm import WarmUp, _shrink, run_small

OPS = HostedOps(TritonOps(), torch.device("cpu"))


def specialization(value: Any) -> Any:
    """What Triton compiles anew for, of an argument of a launch."""
    if isinstance(value, tuple):
        return tuple(map(specialization, value))
    if isinstance(value, torch.Tensor):
        return value.dtype
    return value if not isinstance(value, int) or value == 1 else value % 16 == 0


@contextmanager
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[Any]]:
    """What would have been compiled; nothing runs."""
    seen: set[Any] = set()

    def note(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **constants: Any) -> None:
        seen.add((kernel.__name__, *map(specialization, arguments), *sorted(map(str, constants.items()))))

    with monkeypatch.context() as patch:
        patch.setattr(JITFunction, "run", note)
        # What a measure leaves unwritten is an answer that every program can go on with.
        patch.setattr(torch, "empty", torch.ones)
        yield seen


@pytest.mark.parametrize("method", ["linear", "nuslerp-rows", "dare_linear", "emr", "nearswap", "passthrough"])
def test_small_tasks_compile_what_the_real_ones_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    folders = write_models(tmp_path, [random_tensors(seed) for seed in range(4)])
    plan = pymerge.plan(make_recipe(method, folders, dtype="bfloat16"))
    with compiled(monkeypatch) as small:
        WarmUp(plan.method, plan.tasks, OPS).wait()
    with compiled(monkeypatch) as real:
        for task in plan.tasks:
            if task.inputs is not None:
                run_small(plan.method, task, OPS)
    assert real
    assert real <= small


@pytest.mark.parametrize("shape", [(1 << 19,), (4096, 4096), (5, 3, 1 << 16), (70_001, 9), (2, 1 << 18)])
def test_what_is_large_stays_large_and_as_divisible(shape: tuple[int, ...]) -> None:
    small = _shrink(shape)
    assert 1 << 18 < math.prod(small) < 1 << 19
    assert [size % 16 for size in small] == [size % 16 for size in shape]


def test_what_is_small_stays_so() -> None:
    assert _shrink((512, 512)) == (16, 16)
    assert _shrink((1, 33)) == (1, 17)
    assert _shrink(()) == ()


def test_what_compiling_raised_is_raised_where_it_is_waited_for(tmp_path: Path) -> None:
    class Broken:
        name = "broken"

        def combine(self, *_: object) -> None:
            raise RuntimeError("no assembler")

    folders = write_models(tmp_path, [{"weight": np.zeros((4, 4), np.float32)} for _ in range(3)])
    plan = pymerge.plan(make_recipe("linear", folders))
    warm_up = WarmUp(plan.method, plan.tasks, Broken())
    with pytest.raises(RuntimeError, match="no assembler"):
        warm_up.wait()
