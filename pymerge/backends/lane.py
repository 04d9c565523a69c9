"""A device as a pipeline uses it: copies in and out beside its kernels, each on a stream of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import local
from typing import Any, TypeAlias

import torch

from pymerge.backends.choice import device_room
from pymerge.backends.protocol import NoRoom, Ops
from pymerge.dtypes import DType
from pymerge.errors import ResourceError
from pymerge.ops import Combine, Measure

__all__ = ["TorchLane", "free_memory"]

#: Least and most pinned memory that a file's bytes go through, two such pieces for each thread that reads: one is
#: filled while the other is copied in. What is copied out goes through one of its own size, or this, for each thread.
_PIECES = (1 << 20, 16 << 20)
_PART = 4 << 20
#: What is loaded together begins at multiples of this, as tensors do.
_APART = 512

#: Fills a buffer with bytes of a source from a place on; and where that source begins and ends among those loaded.
_Read: TypeAlias = Callable[[int, Any], None]
_Part: TypeAlias = tuple[int, int, _Read]


def free_memory(device: torch.device) -> int:
    """Bytes that can be had on a device; of the host's, for emulated kernels, a fixed number."""
    if device.type != "cuda":
        return 1 << 30
    return int(torch.cuda.mem_get_info(device)[0])


def _read_parts(parts: list[_Part], begin: int, out: Any) -> None:
    """Fill a window of what parts make together; what is between them stays as it is."""
    end = begin + len(out)
    for first, last, read in parts:
        low, high = max(begin, first), min(end, last)
        if low < high:
            read(low - first, out[low - begin : high - begin])


def _read_all(total: int, parts: list[_Part]) -> torch.Tensor:
    whole = torch.empty(total, dtype=torch.uint8)
    _read_parts(parts, 0, whole.numpy())
    return whole


@dataclass(slots=True)
class _Loaded:
    tensor: torch.Tensor
    there: torch.cuda.Event | None


@dataclass(slots=True)
class _Made:
    tensor: torch.Tensor
    there: torch.cuda.Event | None


class _Piece:
    """Pinned memory, and when what was copied out of it last has been."""

    def __init__(self, size: int) -> None:
        self.tensor = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        self.array = self.tensor.numpy()
        self.free = torch.cuda.Event()


class TorchLane:
    """One device and its backend's kernels; see `pymerge.execute.pipeline.Lane`."""

    def __init__(self, ops: Ops, device: torch.device, memory: int, staging: int) -> None:
        """`memory`: bytes of the device that may be used; `staging`: of the host, for each thread that loads."""
        self._ops = ops
        self._device = device
        self._memory = memory
        self._piece = min(max(staging // 2, _PIECES[0]), _PIECES[1]) & -4096
        self._threads = local()
        self._is_cuda = device.type == "cuda"
        if self._is_cuda:
            self._work = torch.cuda.Stream(device)
            # Not by thread: those of the core are new ones to Python each time.
            self._ways_out: list[tuple[torch.cuda.Stream, _Piece]] = []

    @property
    def room(self) -> int:
        """Bytes of sources and outputs that may be aboard."""
        return device_room(self._memory)

    @contextmanager
    def _on(self, stream: torch.cuda.Stream | None) -> Iterator[None]:
        """Work of this thread goes to the device's stream; running out of memory is NoRoom."""
        try:
            if stream is None:
                yield
            else:
                with torch.cuda.device(self._device), torch.cuda.stream(stream):
                    yield
        except (torch.OutOfMemoryError, ResourceError) as error:
            raise NoRoom(str(error)) from error

    def load(self, sources: Sequence[Any], reads: Sequence[_Read]) -> list[_Loaded]:
        """Copy sources in with one transfer, through pinned memory; several threads at once."""
        total, parts = 0, []
        for source, read in zip(sources, reads, strict=True):
            parts.append((total, total + source.nbytes, read))
            total -= -source.nbytes // _APART * _APART
        whole, there = self._copy_in(total, parts) if self._is_cuda else (_read_all(total, parts), None)
        return [
            _Loaded(whole[begin:end].view(getattr(torch, source.dtype.name)), there)
            for source, (begin, end, _) in zip(sources, parts, strict=True)
        ]

    def _copy_in(self, total: int, parts: list[_Part]) -> tuple[torch.Tensor, torch.cuda.Event]:
        if not hasattr(self._threads, "stream"):
            self._threads.stream = torch.cuda.Stream(self._device)
            self._threads.pieces = [_Piece(self._piece), _Piece(self._piece)]
        with self._on(self._work):
            # Of the kernels' pool, so that one pool serves all; what they used it for last may not be done yet.
            tensor = torch.empty(total, dtype=torch.uint8, device=self._device)
            self._threads.stream.wait_stream(self._work)
        with self._on(self._threads.stream):
            for begin in range(0, total, self._piece):
                size = min(self._piece, total - begin)
                piece = self._threads.pieces[0]
                self._threads.pieces.reverse()
                piece.free.synchronize()
                _read_parts(parts, begin, piece.array[:size])
                tensor[begin : begin + size].copy_(piece.tensor[:size], non_blocking=True)
                piece.free.record()
            there = torch.cuda.Event()
            there.record()
        return tensor, there

    def _take(self, operands: list[_Loaded]) -> list[torch.Tensor]:
        for operand in operands:
            if operand.there is not None:
                self._work.wait_event(operand.there)
        return [operand.tensor for operand in operands]

    def measure(self, request: Measure, operands: list[_Loaded], compute: DType) -> object:
        """Run one measure; the answer is there on return."""
        with self._on(self._work if self._is_cuda else None):
            return self._ops.measure(request, self._take(operands), compute)

    def combine(self, request: Combine, operands: list[_Loaded], compute: DType, dtype: DType, count: int) -> _Made:
        """Start one combine."""
        with self._on(self._work if self._is_cuda else None):
            out = torch.empty(count, dtype=getattr(torch, dtype.name), device=self._device)
            self._ops.combine(request, self._take(operands), compute, out)
            there = None
            if self._is_cuda:
                there = torch.cuda.Event()
                there.record()
        return _Made(out, there)

    def wait(self, made: _Made) -> None:
        """Return when a combine is done."""
        if made.there is not None:
            made.there.synchronize()

    def copy_out(self, made: _Made, begin: int, out: Any) -> None:
        """Copy bytes of what a combine made, from a place on, into a buffer; several threads at once."""
        raw = made.tensor.view(torch.uint8)[begin : begin + len(out)]
        target = torch.frombuffer(out, dtype=torch.uint8)
        if not self._is_cuda:
            target.copy_(raw)
            return
        try:
            stream, piece = self._ways_out.pop()
        except IndexError:
            stream, piece = torch.cuda.Stream(self._device), _Piece(max(len(out), _PART))
        if piece.tensor.numel() < len(out):
            piece = _Piece(len(out))
        staged = piece.tensor[: len(out)]
        with torch.cuda.device(self._device), torch.cuda.stream(stream):
            staged.copy_(raw, non_blocking=True)
            stream.synchronize()
        target.copy_(staged)
        self._ways_out.append((stream, piece))
