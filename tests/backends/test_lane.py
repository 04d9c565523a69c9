"""How a device's lane cuts copies into pieces, with stand-ins for CUDA's streams and events: the rest is a GPU's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pymerge.backends.lane import TorchLane, _Made
from pymerge.checkpoint.values import StoredTensor
from pymerge.dtypes import BY_NAME

CPU = torch.device("cpu")
MIB = 1 << 20


class FakeStream:
    """Work is done at once; what waits for what is written down."""

    def __init__(self, device: Any = None) -> None:
        self.waited: list[Any] = []

    def wait_stream(self, other: Any) -> None:
        self.waited.append(other)

    def wait_event(self, event: Any) -> None:
        self.waited.append(event)

    def synchronize(self) -> None:
        pass


class FakeEvent:
    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        pass


@contextlib.contextmanager
def fake_cuda() -> Iterator[None]:
    """A processor that passes for a GPU as far as a lane looks."""
    real = torch.empty

    def empty(*arguments: Any, pin_memory: bool = False, **named: Any) -> Any:
        return real(*arguments, **named)

    with (
        mock.patch("torch.cuda.Stream", FakeStream),
        mock.patch("torch.cuda.Event", FakeEvent),
        mock.patch("torch.cuda.stream", return_value=contextlib.nullcontext()),
        mock.patch("torch.cuda.device", return_value=contextlib.nullcontext()),
        mock.patch("torch.empty", empty),
    ):
        yield


def make_lane(staging: int, is_cuda: bool) -> TorchLane:
    lane = TorchLane(mock.Mock(), CPU, 1 << 30, staging)
    if is_cuda:
        lane._is_cuda = True
        lane._work, lane._ways_out = torch.cuda.Stream(CPU), []
    return lane


def stored(values: np.ndarray, dtype: str) -> tuple[StoredTensor, Callable[[int, Any], None]]:
    raw = values.view(np.uint8)

    def read(begin: int, out: Any) -> None:
        out[:] = raw[begin : begin + len(out)]

    kind = BY_NAME[dtype]
    return StoredTensor("t", kind, (raw.size // kind.itemsize,), "m", 0, raw.size), read


@pytest.mark.parametrize("is_cuda", [False, True])
@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.sampled_from([0, 1, 7, 128, 1000, 300_000, 700_001]), min_size=1, max_size=6))
def test_what_is_loaded_together_arrives_whole(is_cuda: bool, sizes: list[int]) -> None:
    numbers = np.random.default_rng(1)
    arrays = [numbers.integers(0, 60_000, size).astype(np.uint16) for size in sizes]
    made = [stored(array, "bfloat16") for array in arrays]
    with fake_cuda() if is_cuda else contextlib.nullcontext():
        # Pieces of the least size: a mebibyte, so that some sources begin and end within one.
        lane = make_lane(0, is_cuda)
        loaded = lane.load([source for source, _ in made], [read for _, read in made])
        taken = lane._take(loaded)
    for array, tensor in zip(arrays, taken, strict=True):
        assert tensor.dtype == torch.bfloat16
        assert (tensor.view(torch.uint16).numpy() == array).all()
        assert tensor.data_ptr() % 16 == 0 or not array.size


@pytest.mark.parametrize("is_cuda", [False, True])
def test_any_part_is_copied_out(is_cuda: bool) -> None:
    values = torch.arange(3 * MIB, dtype=torch.int32).view(torch.float32)
    raw = values.view(torch.uint8).numpy()
    with fake_cuda() if is_cuda else contextlib.nullcontext():
        lane = make_lane(MIB, is_cuda)
        made = _Made(values, torch.cuda.Event() if is_cuda else None)
        lane.wait(made)
        for begin, size in [(0, 1), (5, 4096), (MIB + 1, 5 * MIB), (12 * MIB - 3, 3)]:
            out = bytearray(size)
            lane.copy_out(made, begin, memoryview(out))
            assert out == raw[begin : begin + size].tobytes()
        if is_cuda:
            # One way out, used again and again; the largest part made it larger.
            assert [piece.tensor.numel() for _, piece in lane._ways_out] == [5 * MIB]


@pytest.mark.parametrize(("staging", "piece"), [(0, MIB), (5 * MIB, 5 * MIB // 2), (1 << 30, 16 * MIB)])
def test_pieces_are_within_what_they_may_take(staging: int, piece: int) -> None:
    assert make_lane(staging, False)._piece == piece
