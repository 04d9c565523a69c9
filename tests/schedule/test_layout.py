"""Output layout: readable by others, aligned, exact to the byte, dealt to shards as the field does."""

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
from pymerge.dtypes import BY_CODE
from pymerge.plan.values import TensorTask
from pymerge.schedule import Shard
from pymerge.schedule.layout import lay_out

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
