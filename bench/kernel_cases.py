"""What is timed of each kernel: its variants and targets as a table, and inputs like real weights."""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pymerge import _core
from pymerge.kernels.select import spec as select

from .checkpoints import DTYPES, NAMES, make_block
from .memory import OUT_BYTES, make_out

__all__ = ["CASES", "COMPUTE", "Case", "Inputs", "prepare", "time_numpy"]

Array = npt.NDArray[Any]
Call = Callable[[], object]

COMPUTE = "float32"
#: Elements that the reference in numpy is timed on, and from which TIES' thresholds are taken.
_SAMPLE = 1 << 16
_KEEP = 1 << 15  # of 65536: density 0.5


class Inputs:
    """A base and its fine-tunes in one dtype, whole and in the pieces that fill the recycled output.

    Attributes:
        arrays: [elements] each, the base first; `raw` the same as bytes.
        word: the unsigned integer of the dtype's size.
        piece: elements of a call that writes.
    """

    def __init__(self, dtype: str, models: int, elements: int) -> None:
        self.code, kind = DTYPES[dtype]
        self.dtype = NAMES[dtype]
        self.itemsize = np.dtype(kind).itemsize
        self.word = {2: np.uint16, 4: np.uint32}[self.itemsize]
        self.elements = elements
        self.arrays = [np.resize(make_block(index, kind), elements) for index in range(models + 1)]
        self.raw = [array.view(np.uint8) for array in self.arrays]
        self.out = make_out()
        self.piece = min(elements, OUT_BYTES // self.itemsize)

    def tensors(self, begin: int, end: int) -> list[_core.Tensor]:
        """The same elements of every model, the base first."""
        # As words: numpy cannot export ml_dtypes through the buffer protocol.
        views: list[Any] = [array[begin:end].view(self.word) for array in self.arrays]
        return [_core.Tensor.from_buffer(view, self.code) for view in views]

    def samples(self) -> list[Array]:
        """The first elements of every model, the base first."""
        return [array[:_SAMPLE] for array in self.arrays]

    @functools.cached_property
    def rules(self) -> list[tuple[Any, ...]]:
        """TIES' mask rule for each fine-tune."""
        base, *tuned = self.samples()
        cuts = select.run(tuned, base, [base.size // 2] * len(tuned), COMPUTE)
        return [("band", bits, last, (1 << 64) - 1, -1) for bits, last in cuts]


@dataclass(frozen=True, slots=True)
class Case:
    """One way to call a kernel.

    Attributes:
        numbers: (models, elements, TIES' rules) to the kernel's arguments after the tensors.
        writes: True for a combine.
        base: the base is among the inputs; `takes_base` that the kernel has an argument for it.
        targets: models to the share of the yardstick that the v4 kernel should reach; 0: any number.
    """

    kernel: str
    variant: str
    numbers: Callable[[int, int, list[tuple[Any, ...]]], tuple[Any, ...]]
    writes: bool = False
    base: bool = True
    takes_base: bool = True
    targets: Mapping[int, float] = field(default_factory=dict)

    def target(self, models: int) -> float | None:
        """The share of the yardstick to reach, if there is one."""
        return self.targets.get(models, self.targets.get(0))

    def bytes_per_element(self, models: int, itemsize: int) -> tuple[int, int]:
        """(read, written): what the spec's passes move."""
        spec = importlib.import_module(f"pymerge.kernels.{self.kernel}.spec")
        return spec.PASSES * (models + self.base) * itemsize, itemsize if self.writes else 0


def _bernoulli(models: int) -> list[tuple[Any, ...]]:
    return [("bernoulli", _KEEP, 0x9E3779B97F4A7C15 + index) for index in range(models)]


def _merge(rules: list[tuple[Any, ...]], coefficient: float, elect: bool) -> tuple[Any, ...]:
    n = len(rules)
    return rules, [coefficient] * n, "sum" if elect else "none", [0.4] * n, elect, 1.0, [], []


CASES = (
    Case("gram", "plain", lambda m, n, r: (), base=False, targets={0: 0.8}),
    Case("gram", "task_vectors", lambda m, n, r: ()),
    Case("select", "half", lambda m, n, r: ([n // 2] * m,), targets={0: 0.6}),
    Case("masked_sum", "dare", lambda m, n, r: (_bernoulli(m), "l1")),
    Case(
        "weighted_sum",
        "plain",
        lambda m, n, r: ([1.0 / m] * m,),
        writes=True,
        base=False,
        takes_base=False,
        targets={2: 0.8},
    ),
    Case("task_merge", "task_arithmetic", lambda m, n, r: _merge([("all",)] * m, 0.4, False), True, targets={3: 0.6}),
    Case("task_merge", "ties", lambda m, n, r: _merge(r[:m], 0.4, True), True, targets={3: 0.6}),
    Case("task_merge", "dare_linear", lambda m, n, r: _merge(_bernoulli(m), 0.8, False), True, targets={0: 0.6}),
    Case("task_merge", "dare_ties", lambda m, n, r: _merge(_bernoulli(m), 0.8, True), True, targets={0: 0.6}),
)


def prepare(case: Case, inputs: Inputs, models: int, elements: int | None = None) -> list[Call]:
    """Calls that run a case over the inputs once, one thread, at the active instruction-set level.

    A measure is one call on whole tensors; a combine is a call per piece into the recycled output.

    Args:
        elements: take only that many, from the start.
    """
    function = getattr(_core, case.kernel)
    count = inputs.elements if elements is None else elements
    numbers = case.numbers(models, count, inputs.rules)

    def heads(begin: int, end: int) -> tuple[Any, ...]:
        base, *tuned = inputs.tensors(begin, end)
        return (tuned[:models], base if case.base else None) if case.takes_base else (tuned[:models],)

    if not case.writes:
        return [functools.partial(function, *heads(0, count), COMPUTE, *numbers, 1)]
    out = inputs.out.view(inputs.word)
    return [
        functools.partial(function, *heads(begin, end), COMPUTE, inputs.code, *numbers, out[: end - begin], 1)
        for begin, end in ((at, min(count, at + inputs.piece)) for at in range(0, count, inputs.piece))
    ]


def time_numpy(case: Case, inputs: Inputs, models: int) -> float:
    """Nanoseconds per element of the spec's reference in numpy, on a sample that fits in cache."""
    spec = importlib.import_module(f"pymerge.kernels.{case.kernel}.spec")
    base, *tuned = inputs.samples()
    head = (tuned[:models], base if case.base else None) if case.takes_base else (tuned[:models],)
    numbers = case.numbers(models, base.size, inputs.rules)
    started = time.perf_counter()
    spec.run(*head, *numbers, COMPUTE, *([inputs.dtype] if case.writes else []))
    return (time.perf_counter() - started) * 1e9 / base.size
