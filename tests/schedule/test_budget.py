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
#: Down projection of a 70B model.
LARGE = 8192 * 28672


def task(models: int, count: int = LARGE, *, agree: bool = False) -> TensorTask:
    """A tensor that is merged from `models` in bfloat16, or must be the same in all of them."""
    source = StoredTensor("w", BF16, (count,), "file", 0, 2 * count)
    inputs = None if agree else Inputs("w", count, None, tuple(range(models)))
    return TensorTask("w", (count,), BF16, (source,) * models, ("m",) * models, inputs, F32, agree)


@given(
    threads=st.integers(1, 64),
    models=st.integers(1, 12),
    mebibytes=st.integers(1, 8192),
    cuts=st.sampled_from([0, 1, 24]),
)
def test_what_is_chosen_fits_or_the_refusal_names_what_does(
    threads: int, models: int, mebibytes: int, cuts: int
) -> None:
    try:
        chosen = assign_resources([task(models)], threads, mebibytes * MIB, cuts=cuts)
    except ResourceError as error:
        needed = re.search(r"at least (\d+) MiB", str(error))
        assert needed
        assert int(needed[1]) > mebibytes
        chosen = assign_resources([task(models)], threads, int(needed[1]) * MIB, cuts=cuts)
        with pytest.raises(ResourceError):
            assign_resources([task(models)], threads, (int(needed[1]) - 1) * MIB, cuts=cuts)
    # Blocks under way; per worker a run of every input with its edges, or one piece of all of them; keys of a
    # piece; keys gathered, twice.
    inputs = models * (4 * MIB + 4 * MIB) if chosen.in_place else MIB // 2
    pieces = chosen.block * chosen.buffers + threads * (inputs + min(cuts, 2) * MIB)
    gathered = 2 * (cuts + 1) * chosen.gathered if cuts else 0
    assert pieces + gathered + chosen.masks + 48 * MIB <= chosen.memory
    assert chosen.block % 4096 == 0
    assert chosen.buffers > threads
    assert chosen.threads == threads


def test_a_refusal_says_what_else_would_help() -> None:
    with pytest.raises(ResourceError, match=r"of 48 MiB is too small for 2 threads and 3 models.*--memory, or fewer"):
        assign_resources([task(3)], 2, 48 * MIB)
    with pytest.raises(
        ResourceError, match=r"too small for 1 threads and 3 models; give at least \d+ MiB with --memory$"
    ):
        assign_resources([task(3)], 1, 48 * MIB)


def test_blocks_shrink_with_the_budget_and_stop_growing_at_four_mebibytes() -> None:
    blocks = [assign_resources([task(4)], 4, size * MIB).block for size in (52, 60, 70, 90, 1 << 14)]
    assert blocks == sorted(blocks)
    assert blocks[0] == 128 << 10
    assert blocks[1] < blocks[2] < blocks[3] == blocks[4] == 4 * MIB


def test_inputs_are_read_in_place_only_where_there_is_room_for_all_that_then_stays_mapped() -> None:
    # Besides 48 MiB, blocks of 32 MiB and 2 KiB of plan for each input: 8 MiB for each input of each worker.
    for models in (2, 12):
        needed = (48 + 32 + 4 * models * 8) * MIB + models * 2048
        chosen = [assign_resources([task(models)], 4, memory) for memory in (needed - 1, needed)]
        assert [each.in_place for each in chosen] == [False, True]
        # Before blocks get smaller, inputs are copied.
        assert [each.block for each in chosen] == [4 * MIB, 4 * MIB]


def test_more_inputs_take_no_more_memory_where_they_are_copied() -> None:
    few, many = (assign_resources([task(models)], 4, 80 * MIB) for models in (2, 12))
    assert few == many
    assert not many.in_place


def test_tensors_that_must_agree_are_compared_in_whole_blocks() -> None:
    merged, compared = (assign_resources([task(2, agree=agree)], 4, 83 * MIB) for agree in (False, True))
    assert not merged.in_place
    assert merged.block == 4 * MIB
    assert 8 * compared.block + 4 * compared.block + 48 * MIB <= 83 * MIB
    assert compared.block == 2 * MIB


def test_threads_that_nobody_asked_for_are_given_up_before_the_merge_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "usable_processors", lambda: 64)
    assert 1 <= assign_resources([task(4)], None, 64 * MIB).threads < 64
    assert assign_resources([task(4)], None, 1 << 35).threads == 64
    with pytest.raises(ResourceError, match="64 threads"):
        assign_resources([task(4)], 64, 64 * MIB)


def test_keys_are_gathered_whole_where_they_fit_and_bounded_where_not() -> None:
    sizes = [assign_resources([task(4)], 2, size * MIB, cuts=6).gathered for size in (256, 400, 4096)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] == 16 * MIB
    assert assign_resources([task(4, 1 << 22)], 2, 4096 * MIB, cuts=6).gathered < MIB


def test_ranked_rows_take_room_of_each_worker() -> None:
    plain, ranked = (assign_resources([task(3)], 4, 90 * MIB, ranked=inputs).block for inputs in (0, 3))
    assert ranked < plain


def test_masks_are_kept_in_half_of_what_is_left() -> None:
    masks = [assign_resources([task(2)], 2, size * MIB).masks for size in (56, 160, 8192)]
    assert masks[0] == 0
    assert 8 * MIB <= masks[1] <= 32 * MIB
    assert masks[2] == 64 * MIB


def test_many_small_tensors_count_too() -> None:
    few, many = (assign_resources([task(2, 64)] * size, 1, 150 * MIB).block for size in (1, 20_000))
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
