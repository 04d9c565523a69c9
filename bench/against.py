"""Times numpy and torch at what a kernel does, on the same inputs and the same device, one thread on a processor.

A library that is not there, or fails, or cannot compile a case, is told with its reason; nothing stops for it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from .kernel_cases import Case, Inputs
from .rivals import Run, make_rival, numpy_kit, torch_kit
from .spread import Spread
from .table import Column

__all__ = ["LIBRARIES", "add_times", "choose_libraries", "columns_of", "time_against", "time_on_device"]

Call = Callable[[], object]

#: Eager and compiled torch differ in how a function is called.
LIBRARIES = ("numpy", "torch", "torch.compile")
#: Elements of each input at most, on a processor: float32 copies of them are beyond most caches, and twenty cases in
#: three libraries take a minute, not ten.
_MOST = 1 << 22
_ROUNDS = 3


def choose_libraries(names: Sequence[str] | None) -> tuple[str, ...]:
    """The libraries to time; None: numpy, and torch where it is. Compiling takes seconds a case, so it is asked for.

    Raises:
        ValueError: there is no such library, or torch is asked for and not there.
    """
    there = find_spec("torch") is not None
    if names is None:
        return ("numpy", "torch") if there else ("numpy",)
    for name in names:
        if name not in LIBRARIES:
            raise ValueError(f"kernels are not compared with {name!r}; there are: {', '.join(LIBRARIES)}, none")
        if name != "numpy" and not there:
            raise ValueError("torch cannot be imported; pip install 'pymerge[gpu]', or leave it out of --against")
    return tuple(names)


def columns_of(libraries: Sequence[str]) -> tuple[Column, ...]:
    """A column for each library: nanoseconds an element, and how many times ours that is."""

    def show(name: str, record: Mapping[str, Any]) -> str:
        found = record["against"].get(name, {})
        return f"{found['ns']['median']:.2f} ({found['times']:.1f}x)" if "ns" in found else "-"

    return tuple(Column(f"{name} ns", 16, functools.partial(show, name)) for name in libraries)


def time_against(
    case: Case, inputs: Inputs, models: int, libraries: Sequence[str], rounds: int
) -> dict[str, dict[str, Any]]:
    """Time libraries at a case on a processor, one thread, on the first elements of the inputs.

    Returns:
        By library: `ns`, a spread of nanoseconds per element, and `elements`; or `why_not`.
    """
    elements = min(inputs.elements, _MOST)
    numbers = case.numbers(models, elements, inputs.rules)
    rounds = min(rounds, _ROUNDS)
    found: dict[str, dict[str, Any]] = {}
    for library in libraries:
        with _one_thread(library):
            try:
                arrays = _load(library, [array[:elements] for array in inputs.arrays])
                kit = numpy_kit() if library == "numpy" else torch_kit()
                call = _bind(make_rival(kit, case.kernel, case.variant, numbers), library, case, arrays, models)
                found[library] = _describe([_time(call) for _ in range(rounds + 1)][1:], elements)
            except Exception as error:  # whatever a library does, it is told
                found[library] = {"why_not": _name(error)}
    return found


def time_on_device(
    case: Case,
    numbers: tuple[Any, ...],
    tensors: Sequence[Any],
    models: int,
    libraries: Sequence[str],
    rounds: int,
    time_call: Callable[[Call], float],
) -> dict[str, dict[str, Any]]:
    """Time torch at a case on tensors where they are; numpy is not there. See `time_against`.

    Args:
        numbers: the kernel's arguments after the tensors.
        time_call: seconds of a call on the device.
    """
    found: dict[str, dict[str, Any]] = {}
    for library in libraries:
        if library == "numpy":
            continue
        try:
            run = make_rival(torch_kit(tensors[0].device), case.kernel, case.variant, numbers)
            call = _bind(run, library, case, tensors, models)
            found[library] = _describe([time_call(call) for _ in range(rounds + 1)][1:], tensors[0].numel())
        except Exception as error:  # out of memory too: whole float32 copies may not fit
            found[library] = {"why_not": _name(error)}
    return found


def add_times(against: Mapping[str, Mapping[str, Any]], ours: float) -> dict[str, dict[str, Any]]:
    """The same with `times`, the median in multiples of ours, nanoseconds an element."""
    return {
        library: {**found, "times": found["ns"]["median"] / ours} if "ns" in found else dict(found)
        for library, found in against.items()
    }


def _load(library: str, arrays: Sequence[Any]) -> list[Any]:
    if library == "numpy":
        return list(arrays)
    import numpy as np
    import torch

    return [torch.from_numpy(a.view(np.uint8)).view(getattr(torch, a.dtype.name)) for a in arrays]


def _bind(run: Run, library: str, case: Case, arrays: Sequence[Any], models: int) -> Call:
    if library == "torch.compile":
        import torch

        torch.compiler.reset()  # or a case too many is run eagerly, without a word
        run = torch.compile(run)
    base, *tuned = arrays
    return functools.partial(run, tuned[:models], base if case.base else None)


@contextmanager
def _one_thread(library: str) -> Iterator[None]:
    """As the kernels are timed. What numpy is asked for has one anyway."""
    if library == "numpy":
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _time(call: Call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _describe(seconds: Sequence[float], elements: int) -> dict[str, Any]:
    return {"ns": Spread.of([value * 1e9 / elements for value in seconds]).to_json(), "elements": elements}


def _name(error: Exception) -> str:
    """The error's kind and first line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
