"""The memory budget: what is chosen fits, and a refusal names an amount that is enough."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pymerge.checkpoint.values import StoredTensor
from pymerge.dtypes import BY_CODE
from pymerge.errors import RecipeError, ResourceError
from pymerge.methods.base import Inputs
from pymerge.plan.values import TensorTask
from pymerge.schedule import budget
from pymerge.schedule.budget import MIB, assign_resources

BF16, F32 = BY_CODE["BF16"], BY_CODE["F32"]


def task(models: int, count: int = 1 << 20) -> TensorTask:
    """A tensor that is merged from `models` in bfloat16."""
    source = StoredTensor("w", BF16, (count,), "file", 0, 2 * count)
    inputs = Inputs("w", count, None, tuple(range(models)))
    return TensorTask("w", (count,), BF16, (source,) * models, ("m",) * models, inputs, F32)


@given(threads=st.integers(1, 64), models=st.integers(1, 12), mebibytes=st.integers(1, 4096))
def test_what_is_chosen_fits_or_the_refusal_names_what_does(threads: int, models: int, mebibytes: int) -> None:
    try:
        chosen = assign_resources([task(models)], threads, mebibytes * MIB)
    except ResourceError as error:
        needed = re.search(r"at least (\d+) MiB", str(error))
        assert needed
        assert int(needed[1]) > mebibytes
        chosen = assign_resources([task(models)], threads, int(needed[1]) * MIB)
    left = chosen.memory - chosen.block * (chosen.buffers + threads * models)
    assert left >= 96 * MIB + min(32 * MIB * models, chosen.memory // 4)
    assert chosen.block % 4096 == 0
    assert chosen.buffers > threads
    assert chosen.threads == threads


def test_a_refusal_says_what_else_would_help() -> None:
    with pytest.raises(ResourceError, match=r"budget of 64 MiB is too small for 2 threads and 3 models.*--memory"):
        assign_resources([task(3)], 2, 64 * MIB)


def test_blocks_shrink_with_the_budget_and_stop_growing_at_four_mebibytes() -> None:
    blocks = [assign_resources([task(4)], 4, size * MIB).block for size in (180, 256, 512, 1 << 14)]
    assert blocks == sorted(blocks)
    assert blocks[0] < blocks[-1] == 4 * MIB


def test_more_inputs_take_smaller_blocks() -> None:
    few, many = (assign_resources([task(models)], 8, 600 * MIB).block for models in (2, 12))
    assert many < few


def test_by_default_every_processor_and_a_quarter_of_memory_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "usable_processors", lambda: 5)
    monkeypatch.setattr(budget, "usable_memory", lambda: 8 << 30)
    chosen = assign_resources([task(2)], None, None)
    assert (chosen.threads, chosen.memory) == (5, 2 << 30)


@pytest.mark.parametrize("tasks", [[], [task(2, 0)]])
def test_plans_without_data_get_resources_too(tasks: list[TensorTask]) -> None:
    assert assign_resources(tasks, 1, 200 * MIB).block > 0


@pytest.mark.parametrize("threads", [0, -3])
def test_no_threads_are_refused(threads: int) -> None:
    with pytest.raises(RecipeError, match=f"threads = {threads} must be at least 1"):
        assign_resources([task(2)], threads, None)
