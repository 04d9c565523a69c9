"""The backends under test: the compiled kernels at each instruction-set level, and thread counts.

PYMERGE_TEST_BACKEND=cuda or triton takes that backend instead, on a GPU or, with
PYMERGE_EMULATED_CUDA=build/emulated, on the processor, or, with TRITON_INTERPRET=1, in Triton's interpreter;
then only tests of every backend run.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from execute.merges import forced, levels

from pymerge import _core
from pymerge.backends.cpu import CpuOps
from pymerge.backends.protocol import Ops
from pymerge.dtypes import DType
from pymerge.ops import Combine, MaskRule, Measure

UNDER_TEST = os.environ.get("PYMERGE_TEST_BACKEND", "cpu")
#: It imports tools/, which are not there where pymerge is imported from an installation.
collect_ignore = [] if UNDER_TEST == "cpu" else ["test_numerics.py"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not about the backend under test; the CPU's merges are tested in tests/execute."""

    def concerns(item: pytest.Item) -> bool:
        fixtures = {*getattr(item, "fixturenames", ())}
        return "backend" not in fixtures if UNDER_TEST == "cpu" else bool({"ops", "best", "backend"} & fixtures)

    kept = [item for item in items if concerns(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


@pytest.fixture(params=levels())
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """One instruction-set level, in force during the test."""
    with forced(request.param):
        yield request.param


@pytest.fixture(params=[1, 2, 7])
def threads(request: pytest.FixtureRequest) -> int:
    """A thread count; none may change a bit."""
    return int(request.param)


@pytest.fixture
def backend() -> str:
    """The name of the backend under test, a device's."""
    return UNDER_TEST


class EachLevel:
    """The CPU backend on two threads at every level that this machine has, whose answers must be the same.

    So a test asks for the specification's answer, which takes most of its time, once.
    """

    name = "cpu"
    compiles_at_launch = False

    def __init__(self) -> None:
        self._ops = CpuOps(threads=2)
        self.levels = [name for name, supported in _core.isa_levels() if supported]

    def _at_each(self, run: Callable[[], Any]) -> Any:
        answers = []
        for level in self.levels:
            with forced(level):
                answers.append(run())
            # To the sign of a zero, NaN to any NaN; most are equal bit for bit, which is sooner known.
            same = any(write(answers[0]) == write(answers[-1]) for write in (pickle.dumps, repr))
            assert same, f"{level} does not answer as {self.levels[0]}"
        return answers[0]

    def _into(self, out: Any, run: Callable[[], None]) -> None:
        def fill() -> bytes:
            # What a level leaves out must not be there from the one before.
            out.view(np.uint8).fill(77)
            run()
            return out.tobytes()

        self._at_each(fill)

    def measure(self, request: Measure, operands: Sequence[Any], compute: DType) -> object:
        return self._at_each(lambda: self._ops.measure(request, operands, compute))

    def combine(self, request: Combine, operands: Sequence[Any], compute: DType, out: Any) -> None:
        self._into(out, lambda: self._ops.combine(request, operands, compute, out))

    def mask(self, rule: MaskRule, delta: Any, out: Any) -> None:
        self._into(out, lambda: self._ops.mask(rule, delta, out))


if UNDER_TEST == "cpu":

    @pytest.fixture(scope="session")
    def ops() -> Ops:
        """The CPU backend at all levels."""
        return EachLevel()

    @pytest.fixture(scope="session")
    def best() -> Ops:
        """The CPU backend as it runs here."""
        return CpuOps(threads=2)

else:
    import on_device

    if on_device.cases.EMULATED:
        on_device.load_emulated()

    @pytest.fixture(scope="session")
    def ops() -> Ops:
        """The backend under test."""
        return on_device.make_ops(UNDER_TEST)

    @pytest.fixture(scope="session")
    def best(ops: Ops) -> Ops:
        """The same."""
        return ops
