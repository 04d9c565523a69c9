"""A device's kernels, inputs from its memory, against copying within that memory in the same run.

`pymerge bench kernels --backend cuda` is its command line. Bytes are those of the spec's passes; a copy
reads as many as it writes. Two times are told: a call's, from before its first launch to after its last, with
the gaps in which the device waits for the host; and how long the device was busy meanwhile, which shares go by.
"""

from __future__ import annotations

import functools
import importlib
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import records
from .against import add_times, choose_libraries, time_on_device
from .checkpoints import DTYPES
from .kernel_cases import CASES, COMPUTE, Case, Inputs
from .kernels import check_choice
from .spread import Spread

__all__ = ["bench_device"]

Record = dict[str, Any]
Call = Callable[[], object]

#: Kernel -> the share of the copy's rate to reach on a device; select's is of each pass.
_TARGETS = {"gram": 0.9, "weighted_sum": 0.9, "task_merge": 0.9, "select": 0.75}
_TORCH = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
#: Bytes of an input: many times a device's caches.
_SIZE = 1 << 30
_WARM_UPS = 2


def bench_device(
    backend: str,
    kernels: Sequence[str],
    dtypes: Sequence[str] = ("bf16", "f16", "f32"),
    models: Sequence[int] = (2, 3),
    sizes: Sequence[int] = (),
    rounds: int = 10,
    history: Path | None = None,
    against: Sequence[str] | None = (),
) -> Iterator[Record]:
    """Time a device's kernels; a record for each kernel, variant, dtype and number of models.

    Args:
        backend: "cuda" or "triton".
        sizes: elements of an input, one after the other; none makes each input a gigabyte.
        rounds: timed calls of each; others come first and are not counted.
        history: a file of JSON lines that gets the records.
        against: libraries that are timed at the same, of which numpy is left out; None: torch.

    Raises:
        ValueError: a name or number that there is not; the message says which there are.
    """
    check_choice(kernels, dtypes, models, sizes, rounds)
    libraries = choose_libraries(against)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    facts = {
        "bench": "kernels",
        "time": records.stamp(),
        "machine": records.machine(),
        "device": _describe(device, backend),
    }
    for dtype in dtypes:
        for size in sizes or [_SIZE // np.dtype(DTYPES[dtype][1]).itemsize]:
            for record in _bench_dtype(backend, kernels, dtype, models, size, rounds, device, libraries):
                if history is not None:
                    records.append(history, [facts | record])
                yield facts | record


def _describe(device: torch.device, backend: str) -> dict[str, str]:
    facts = {"torch": torch.__version__, "cuda": str(torch.version.cuda)}
    if backend == "triton":
        import triton

        facts["triton"] = triton.__version__
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "none: the processor stands for it"
    return {"name": name, **facts}


def _prepare(case: Case, backend: str, inputs: Inputs, tensors: Sequence[torch.Tensor], models: int) -> Call:
    base, *tuned = tensors
    numbers = case.numbers(models, base.numel(), inputs.rules)
    out = (torch.empty_like(base),) if case.writes else ()
    given = tuned[:models], base if case.base else None
    if backend == "cuda":
        return _prepare_compiled(case, inputs.code, *given, numbers, *out)
    module = importlib.import_module(f"pymerge.kernels.{case.kernel}.{backend}")
    run = getattr(module, f"run_{case.form}" if case.form else "run")
    return functools.partial(run, *given, *numbers, COMPUTE, *out)


def _prepare_compiled(
    case: Case,
    code: str,
    tuned: Sequence[torch.Tensor],
    base: torch.Tensor | None,
    numbers: tuple[Any, ...],
    out: torch.Tensor | None = None,
) -> Call:
    from pymerge import _cuda

    def tensor_of(tensor: torch.Tensor) -> _cuda.DeviceTensor:
        return _cuda.DeviceTensor(tensor.data_ptr(), code, tensor.numel())

    stream = 0 if _cuda.EMULATED else torch.cuda.current_stream().cuda_stream
    call = functools.partial(
        getattr(_cuda, case.call),
        list(map(tensor_of, tuned)),
        None if base is None else tensor_of(base),
        COMPUTE,
        *(() if out is None else (code,)),
        *numbers,
        *(() if out is None else (tensor_of(out),)),
        stream,
    )
    kept = tuned, base, out  # what the call points to
    return lambda: call() if kept else None


def _bench_dtype(
    backend: str,
    kernels: Sequence[str],
    dtype: str,
    models: Sequence[int],
    elements: int,
    rounds: int,
    device: torch.device,
    libraries: Sequence[str],
) -> Iterator[Record]:
    inputs = Inputs(dtype, max(models), elements)
    tensors = [torch.from_numpy(raw).to(device).view(_TORCH[dtype]) for raw in inputs.raw]
    spare = torch.empty_like(tensors[0])
    peak = _multiply_rate(device)
    time_call = functools.partial(_time, device=device)
    for case in CASES:
        if case.kernel not in kernels:
            continue
        for n in case.models(models):
            call = _prepare(case, backend, inputs, tensors, n)
            copy = functools.partial(spare.copy_, tensors[0])
            seconds = [_time(call, device) for _ in range(_WARM_UPS + rounds)]
            spread = Spread.of([value * 1e9 / elements for value in seconds[_WARM_UPS:]])
            # Copies before and after, since a device's clock moves.
            halves = max(1, rounds // 2)
            runs = ((copy, halves), (call, rounds), (copy, halves))
            before, busy, after = (_busy(run, count, device) for run, count in runs)
            rate = 2 * spare.numel() * spare.element_size() / ((before + after) / 2)
            moved = sum(case.bytes_per_element(n, inputs.itemsize))
            numbers = case.numbers(n, elements, inputs.rules)
            others = time_on_device(case, numbers, tensors, n, libraries, rounds, time_call)
            yield {
                "kernel": case.kernel,
                "variant": case.variant,
                "dtype": dtype,
                "models": n,
                "isa": backend,
                "elements": elements,
                "rounds": rounds,
                "ns": spread.to_json(),
                "busy_ns": busy * 1e9 / elements,
                "bytes_per_element": moved,
                "rate": moved * elements / busy,
                "yardstick": "copy",
                "yardstick_rate": rate,
                "share": moved * elements / busy / rate,
                "target": _TARGETS.get(case.kernel),
                "writes": case.writes,
                "operations": case.count_operations(n),
                "peak_rate": peak,
                "against": add_times(others, spread.median),
            }


def _multiply_rate(device: torch.device) -> float:
    """Float32 operations per second of matrix products, of a multiplication and an addition each."""
    rows = 4096 if device.type == "cuda" else 256
    matrix = torch.ones(rows, rows, device=device)
    best: float = min(_time(lambda: matrix @ matrix, device) for _ in range(5))
    return 2 * rows**3 / best


def _time(call: Call, device: torch.device) -> float:
    """Seconds of one call."""
    if device.type != "cuda":
        started = time.perf_counter()
        call()
        return time.perf_counter() - started
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    end.synchronize()
    milliseconds: float = begin.elapsed_time(end)
    return milliseconds / 1000


def _busy(call: Call, rounds: int, device: torch.device) -> float:
    """Seconds that a call keeps the device busy, as its own counters say; the mean of some calls."""
    if device.type != "cuda":
        return statistics.median(_time(call, device) for _ in range(rounds))
    call()
    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what a profiler forgets between cycles; there is one
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            for _ in range(rounds):
                call()
            torch.cuda.synchronize()
        events = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return sum(float(event.time_range.elapsed_us()) for event in events) / 1e6 / rounds
