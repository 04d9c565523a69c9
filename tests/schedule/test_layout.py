"""Output layout: readable by others, aligned, exact to the byte, dealt to shards as the field does, in step
with what is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from pymerge import _core
from pymerge.checkpoint.values import StoredTensor
from pymerge.dtypes import BY_CODE
from pymerge.plan.values import TensorTask
from pymerge.schedule import Shard
from pymerge.schedule.layout import lay_out
from pymerge.schedule.values import SHARE_UNIT

F32 = BY_CODE["F32"]
NUMPY = {"F64": np.float64, "F32": np.float32, "BF16": ml_dtypes.bfloat16, "I64": np.int64, "U8": np.uint8}


def task(name: str, shape: Sequence[int] = (4,), code: str = "F32") -> TensorTask:
    return TensorTask(name, tuple(shape), BY_CODE[code], (), (), None, F32)


def sized(**sizes: int) -> list[TensorTask]:
    """Byte tensors of these names and sizes."""
    return [task(name, (size,), "U8") for name, size in sizes.items()]


def dealt(tasks: Sequence[TensorTask], limit: int) -> list[list[str]]:
    return [[tasks[place.task].name for place in shard.placements] for shard in lay_out(tasks, limit)]


def deal_as_the_field_does(sizes: dict[str, int], limit: int) -> list[set[str]]:
    """In order of names, a shard is closed if the next tensor would take it past the limit."""
    shards: list[set[str]] = []
    room = 0
    for name, size in sorted(sizes.items()):
        if not shards or size > room:
            shards.append(set())
            room = limit
        shards[-1].add(name)
        room -= size
    return shards


tasks = st.builds(
    lambda specs: [task(name, shape, code) for name, (shape, code) in specs.items()],
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6),
        st.tuples(st.lists(st.integers(0, 6), max_size=3), st.sampled_from(list(NUMPY))),
        min_size=1,
        max_size=12,
    ),
)


def write_zeros(shard: Shard, folder: Path) -> Path:
    path = folder / shard.name
    path.write_bytes(shard.header + bytes(shard.size - len(shard.header)))
    return path


@settings(max_examples=60, deadline=None)
@given(tasks=tasks, limit=st.integers(0, 200))
def test_others_read_every_shard_and_find_the_planned_tensors(
    tmp_path_factory: pytest.TempPathFactory, tasks: list[TensorTask], limit: int
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for shard in lay_out(tasks, limit):
        path = write_zeros(shard, folder)
        with safe_open(path, "np") as handle:
            assert handle.metadata() == {"format": "pt"}
            for name in handle.keys():  # noqa: SIM118 - not a mapping
                found[name] = (handle.get_slice(name).get_dtype(), tuple(handle.get_slice(name).get_shape()))
        ours = {name: (begin, end - begin) for name, _, _, begin, end in _core.read_header(str(path))[0]}
        assert ours == {tasks[p.task].name: (p.offset, p.nbytes) for p in shard.placements}
    assert found == {each.name: (each.dtype.code, each.shape) for each in tasks}


@given(tasks=tasks, limit=st.integers(0, 200))
def test_placements_are_gapless_and_aligned(tasks: list[TensorTask], limit: int) -> None:
    for shard in lay_out(tasks, limit):
        end = len(shard.header)
        assert end % 64 == 0
        for place in shard.placements:
            assert place.offset == end
            assert place.offset % tasks[place.task].dtype.itemsize == 0
            assert place.nbytes == tasks[place.task].nbytes
            end += place.nbytes
        assert shard.size == end


@given(
    sizes=st.dictionaries(st.text("ab1.", min_size=1, max_size=4), st.integers(1, 50), min_size=1),
    limit=st.integers(1, 90),
)
def test_tensors_are_dealt_as_the_field_does(sizes: dict[str, int], limit: int) -> None:
    assert [set(names) for names in dealt(sized(**sizes), limit)] == deal_as_the_field_does(sizes, limit)


def test_names_are_dealt_in_the_order_of_their_characters() -> None:
    assert dealt(sized(l2=10, l10=10, L3=10), 10) == [["L3"], ["l10"], ["l2"]]


def test_a_shard_may_be_exactly_full() -> None:
    assert dealt(sized(a=6, b=4, c=1), 10) == [["a", "b"], ["c"]]


def test_a_tensor_over_the_limit_is_alone() -> None:
    assert dealt(sized(a=1, b=99, c=1), 10) == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize("limit", [0, -1])
def test_no_limit_means_one_file(limit: int) -> None:
    assert dealt(sized(a=60, b=60), limit) == [["a", "b"]]


def test_wider_types_come_first_in_a_shard() -> None:
    mixed = [task("a", code="U8"), task("b", code="BF16"), task("c", code="I64"), task("d", code="BF16")]
    assert dealt(mixed, 0) == [["c", "b", "d", "a"]]


def test_one_shard_has_the_plain_name() -> None:
    assert [shard.name for shard in lay_out(sized(a=1), 10)] == ["model.safetensors"]


def test_more_shards_are_numbered_from_one() -> None:
    assert [shard.name for shard in lay_out(sized(a=9, b=9, c=9), 10)] == [
        f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)
    ]


def test_a_plan_without_tensors_is_a_header() -> None:
    (shard,) = lay_out([], 10)
    assert shard.size == len(shard.header)


def stored(each: TensorTask, offset: int, path: str = "source") -> StoredTensor:
    """What `each` copies: the same tensor at some byte of a file."""
    return StoredTensor(each.name, each.dtype, each.shape, path, offset, each.nbytes)


def in_step(shard: Shard) -> list[int]:
    return [place.task for place in shard.placements if place.in_step]


@st.composite
def copied(draw: st.DrawFn) -> tuple[list[TensorTask], list[StoredTensor | None]]:
    """Tasks, of which some copy a tensor that lies anywhere."""
    made = draw(tasks)
    places = [draw(st.none() | st.integers(8, 20_000)) for _ in made]
    return made, [None if at is None else stored(each, at) for each, at in zip(made, places, strict=True)]


@given(case=copied(), limit=st.integers(0, 200))
def test_padding_that_follows_copies_keeps_every_tensor_aligned_and_moves_nothing_else(
    case: tuple[list[TensorTask], list[StoredTensor | None]], limit: int
) -> None:
    made, twins = case
    plain, shards = lay_out(made, limit), lay_out(made, limit, twins)
    assert shards == lay_out(made, limit, twins)
    for before, shard in zip(plain, shards, strict=True):
        text, without = (each.header[8:] for each in (shard, before))
        assert (text.rstrip(), shard.name) == (without.rstrip(), before.name)
        assert int.from_bytes(shard.header[:8], "little") == len(text)
        # Less than a page more than the text needs.
        assert len(text) - len(text.rstrip()) < SHARE_UNIT
        moved = len(shard.header) - len(before.header)
        assert [(p.task, p.offset - moved, p.nbytes) for p in shard.placements] == [
            (p.task, p.offset, p.nbytes) for p in before.placements
        ]
        assert shard.size - moved == before.size
        for place in shard.placements:
            assert place.offset % made[place.task].dtype.itemsize == 0
            assert place.twin == twins[place.task]


@given(case=copied())
def test_no_other_padding_would_put_more_bytes_in_step(
    case: tuple[list[TensorTask], list[StoredTensor | None]],
) -> None:
    made, twins = case
    (shard,) = lay_out(made, 0, twins)
    heaviest = sum(shard.placements[at].nbytes for at, place in enumerate(shard.placements) if place.in_step)
    for padding in range(0, SHARE_UNIT, 8):
        weight = 0
        for place in shard.placements:
            twin = twins[place.task]
            if twin is not None and (twin.offset - place.offset - padding) % SHARE_UNIT == 0:
                weight += place.nbytes
        assert weight <= heaviest


@pytest.mark.parametrize("start", [8, 64, 1000, 4096, 12_344])
def test_a_copied_file_lies_in_its_pages_as_its_source_does(start: int) -> None:
    each = [task("a", (5000,)), task("b", (300,)), task("c", (7,), "U8")]
    twins = [stored(each[0], start), stored(each[1], start + 20_000), stored(each[2], start + 21_200)]
    (shard,) = lay_out(each, 0, twins)
    assert in_step(shard) == [0, 1, 2]
    assert len(shard.header) % SHARE_UNIT == start % SHARE_UNIT


def test_of_sources_out_of_step_with_each_other_the_heavier_wins() -> None:
    each = sized(a=100, b=60, c=60)
    twins = [stored(each[0], 8, "one"), stored(each[1], 204, "two"), stored(each[2], 264, "two")]
    (shard,) = lay_out(each, 0, twins)
    assert in_step(shard) == [1, 2]


def test_a_source_between_the_elements_is_not_followed() -> None:
    each = [task("a"), task("b")]
    (shard,) = lay_out(each, 0, [stored(each[0], 4093), None])
    assert in_step(shard) == []
    assert len(shard.header) % 64 == 0


def test_without_copies_data_starts_at_a_cache_line() -> None:
    assert lay_out(sized(a=3, b=5), 0, [None, None]) == lay_out(sized(a=3, b=5), 0)


def test_every_shard_follows_its_own_copies() -> None:
    each = sized(a=10, b=10, c=10)
    shards = lay_out(each, 10, [stored(each[0], 808, "one"), None, stored(each[2], 4096, "two")])
    assert [len(shard.header) % SHARE_UNIT for shard in shards if shard.placements[0].twin] == [808, 0]
    assert len(shards[1].header) % 64 == 0
