"""What is timed of each kernel: its variants and targets as a table, and inputs like real weights."""

from __future__ import annotations

import functools
import importlib
import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pymerge import _core
from pymerge.kernels.select import spec as select

from .checkpoints import BLOCK, DTYPES, NAMES, make_block
from .memory import OUT_BYTES, make_out

__all__ = ["CASES", "COMPUTE", "Case", "Inputs", "prepare"]

Array = npt.NDArray[Any]
Call = Callable[[], object]

COMPUTE = "float32"
#: Elements from which TIES' thresholds are taken.
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
        blocks = [make_block(index, kind, min(BLOCK, elements)) for index in range(models + 1)]
        self.arrays = [np.resize(block, elements) for block in blocks]
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
        base: the base is among the inputs.
        form: of the kernel: "" or what its name is followed by, lines (numbers are per row) or spread.
        single: it takes one model besides the base, however many there are.
        targets: models to the share of the yardstick that the v4 kernel should reach; 0: any number.
        operations: (of an element, of an element and model): what the formula adds, multiplies, compares and selects,
            for a picture; a random draw is 9 (seven rounds of Philox for eight), row_divergence's are of its near way.
    """

    kernel: str
    variant: str
    numbers: Callable[[int, int, list[tuple[Any, ...]]], tuple[Any, ...]]
    writes: bool = False
    base: bool = True
    form: str = ""
    single: bool = False
    targets: Mapping[int, float] = field(default_factory=dict)
    operations: tuple[float, float] = (0, 0)

    def count_operations(self, models: int) -> float:
        """Operations of the formula for one element of the inputs; a gram has a product for each pair."""
        if self.kernel == "gram":
            return models * (models + 1) + self.base * models
        fixed, each = self.operations
        return fixed + each * models

    def target(self, models: int) -> float | None:
        """The share of the yardstick to reach, if there is one."""
        return self.targets.get(models, self.targets.get(0))

    def models(self, asked: Sequence[int]) -> Sequence[int]:
        """How many models it is timed with."""
        return (1,) if self.single else asked

    @property
    def call(self) -> str:
        """The compiled function."""
        return f"{self.kernel}_{self.form}" if self.form else self.kernel

    def reference(self) -> Callable[..., Any]:
        """The spec's function for it."""
        spec = importlib.import_module(f"pymerge.kernels.{self.kernel}.spec")
        run: Callable[..., Any] = getattr(spec, f"run_{self.form}" if self.form else "run")
        return run

    def bytes_per_element(self, models: int, itemsize: int) -> tuple[int, int]:
        """(read, written): what the spec's passes move."""
        spec = importlib.import_module(f"pymerge.kernels.{self.kernel}.spec")
        return spec.PASSES * (models + self.base) * itemsize, itemsize if self.writes else 0


def _bernoulli(models: int) -> list[tuple[Any, ...]]:
    return [("bernoulli", _KEEP, 0x9E3779B97F4A7C15 + index) for index in range(models)]


def _above(models: int) -> list[tuple[Any, ...]]:
    return [("band", 0x3727C5AC, -1, (1 << 64) - 1, -1)] * models  # magnitudes above 1e-5


def _rows(elements: int) -> tuple[int, int, bool]:
    """Rows of up to 4,096 elements; a single one where they do not come out even."""
    length = elements if elements % 2 else math.gcd(elements, 1 << 12)
    return elements // length, length, False


def _numbers(models: int, elements: int, number: float) -> tuple[Any, ...]:
    """As many numbers for each row, and the rows."""
    rows = _rows(elements)
    return array("d", [number]) * (models * rows[0]), rows


def _merge(rules: list[tuple[Any, ...]], coefficient: float, elect: bool) -> tuple[Any, ...]:
    n = len(rules)
    return rules, [coefficient] * n, "sum" if elect else "none", [0.4] * n, elect, 1.0, [], [], False


CASES = (
    Case("gram", "plain", lambda m, n, r: (), base=False, targets={0: 0.8}),
    Case("gram", "task_vectors", lambda m, n, r: ()),
    Case("gram", "rows", lambda m, n, r: (_rows(n),), base=False, form="lines"),
    Case("select", "half", lambda m, n, r: ([n // 2] * m,), targets={0: 0.6}, operations=(0, 4)),
    Case("select", "spread", lambda m, n, r: (0.5,), base=False, form="spread", operations=(2, 3)),
    Case("select", "scores", lambda m, n, r: ([n // 2] * m, *_numbers(1, n, 1e-6)), form="lines", operations=(0, 5)),
    Case("masked_sum", "dare", lambda m, n, r: (_bernoulli(m), "l1"), operations=(0, 14)),
    Case("overlap", "above", lambda m, n, r: (_above(m),), operations=(0, 6)),
    Case("row_divergence", "softmax", lambda m, n, r: (_rows(n),), single=True, operations=(30, 0)),
    Case(
        "weighted_sum",
        "plain",
        lambda m, n, r: ([1.0 / m] * m,),
        writes=True,
        base=False,
        targets={2: 0.8},
        operations=(-1, 2),
    ),
    Case("weighted_sum", "rows", lambda m, n, r: _numbers(m, n, 1.0 / m), writes=True, form="lines", operations=(0, 3)),
    Case("near_swap", "t", lambda m, n, r: (1e-3,), writes=True, single=True, operations=(7, 0)),
    Case(
        "fusion",
        "threshold",
        lambda m, n, r: (*_numbers(1, n, 1e-6), 2e-9),
        writes=True,
        single=True,
        operations=(5, 0),
    ),
    Case(
        "task_merge",
        "task_arithmetic",
        lambda m, n, r: _merge([("all",)] * m, 0.4, False),
        True,
        targets={3: 0.6},
        operations=(0, 3),
    ),
    Case("task_merge", "ties", lambda m, n, r: _merge(r[:m], 0.4, True), True, targets={3: 0.6}, operations=(3, 10)),
    Case(
        "task_merge",
        "dare_linear",
        lambda m, n, r: _merge(_bernoulli(m), 0.8, False),
        True,
        targets={0: 0.6},
        operations=(0, 13),
    ),
    Case(
        "task_merge",
        "dare_ties",
        lambda m, n, r: _merge(_bernoulli(m), 0.8, True),
        True,
        targets={0: 0.6},
        operations=(3, 18),
    ),
)


def prepare(case: Case, inputs: Inputs, models: int, elements: int | None = None) -> list[Call]:
    """Calls that run a case over the inputs once, one thread, at the active instruction-set level.

    A measure is one call on whole tensors; a combine is a call per piece into the recycled output.

    Args:
        elements: take only that many, from the start.
    """
    function = getattr(_core, case.call)
    count = inputs.elements if elements is None else elements

    def make(begin: int, end: int, *types: str, out: tuple[Array, ...] = ()) -> Call:
        base, *tuned = inputs.tensors(begin, end)
        numbers = case.numbers(models, end - begin, inputs.rules)
        return functools.partial(function, tuned[:models], base if case.base else None, *types, *numbers, *out, 1)

    if not case.writes:
        return [make(0, count, COMPUTE)]
    out = inputs.out.view(inputs.word)
    return [
        make(begin, end, COMPUTE, inputs.code, out=(out[: end - begin],))
        for begin, end in ((at, min(count, at + inputs.piece)) for at in range(0, count, inputs.piece))
    ]
