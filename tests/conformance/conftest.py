"""The backends under test: the compiled kernels at each instruction-set level, and thread counts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pymerge import _core
from pymerge.backends.cpu import CpuOps

LEVELS = [name for name, _ in _core.isa_levels()]


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """One instruction-set level, in force during the test."""
    supported = dict(_core.isa_levels())
    if not supported[request.param]:
        pytest.skip(f"needs ISA {request.param}")
    before = _core.active_isa()
    _core.force_isa(request.param)
    assert _core.active_isa() == request.param
    yield request.param
    _core.force_isa(before)


@pytest.fixture(params=[1, 2, 7])
def threads(request: pytest.FixtureRequest) -> int:
    """A thread count; none may change a bit."""
    return int(request.param)


@pytest.fixture
def cpu(level: str) -> CpuOps:
    """The CPU backend at one level, on two threads."""
    return CpuOps(threads=2)
