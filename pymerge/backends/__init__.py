"""Backends: the same kernels on different hardware, agreeing bit for bit; and which one to use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from pymerge.backends.protocol import Ops
from pymerge.errors import BackendError

__all__ = [
    "DEVICE_BACKENDS",
    "available",
    "load_device_ops",
    "load_lanes",
    "load_ops",
    "resolve_backend",
    "resolve_devices",
]


def _why_not_cpu() -> str:
    present = find_spec("pymerge._core") is not None
    return "" if present else "the compiled core is missing; install pymerge with a C++20 compiler"


def _why_not_import(*names: str) -> str:
    missing = [name for name in names if find_spec(name) is None]
    if not missing:
        return ""
    return f"{' and '.join(missing)} cannot be imported; pip install 'pymerge[gpu]', or use --backend cpu"


def _why_not_triton() -> str:
    if reason := _why_not_import("torch", "triton"):
        return reason
    from pymerge.backends.device import why_no_device
    from pymerge.kernels.common.triton.launch import INTERPRETED

    return "" if INTERPRETED else why_no_device()


def _why_not_cuda() -> str:
    if find_spec("pymerge._cuda") is None:
        return "pymerge was built without CUDA kernels; install it where nvcc is, or use --backend triton or cpu"
    if reason := _why_not_import("torch"):
        return reason
    from pymerge import _cuda
    from pymerge.backends.device import why_no_device

    if _cuda.EMULATED:
        return ""
    if reason := why_no_device():
        return reason
    reason = _cuda.why_unavailable()
    return reason and f"{reason}; see that nvidia-smi lists a GPU and a driver for it, or use --backend cpu"


#: Every name that `--backend` knows besides auto -> what stands against it here, empty if nothing does.
_BACKENDS: dict[str, Callable[[], str]] = {
    "cpu": _why_not_cpu,
    "reference": lambda: "",
    "cuda": _why_not_cuda,
    "triton": _why_not_triton,
}

#: Those that compute on torch tensors of a device, best first.
DEVICE_BACKENDS = ("cuda", "triton")


def available() -> list[tuple[str, bool, str]]:
    """(name, usable here, reason if not) of every backend; may import torch."""
    reasons = {name: why_not() for name, why_not in _BACKENDS.items()}
    return [(name, not reason, reason) for name, reason in reasons.items()]


def resolve_backend(name: str) -> str:
    """Return the backend that `name` ("auto" or a backend's own) stands for.

    Raises:
        BackendError: it was asked for by name and cannot run, or does not exist. Only auto chooses.
    """
    if name == "auto":
        return "cpu"
    if name not in _BACKENDS:
        raise BackendError(f"unknown backend {name!r}; it is one of auto, {', '.join(_BACKENDS)}")
    if reason := _BACKENDS[name]():
        raise BackendError(f"backend {name!r} is not available: {reason}")
    return name


def load_ops(name: str, threads: int = 1) -> Ops:
    """Return the backend's kernels for tensors in host memory; `name` as `resolve_backend` takes it."""
    chosen = resolve_backend(name)
    if chosen == "reference":
        from pymerge.backends.reference import ReferenceOps

        return ReferenceOps()
    if chosen in DEVICE_BACKENDS:
        from pymerge.backends.hosted import HostedOps

        return HostedOps(*_load_device(chosen))
    from pymerge.backends.cpu import CpuOps

    return CpuOps(threads)


def _load_device(name: str) -> tuple[Ops, Any]:
    """The kernels of a device's backend that can run, and the device that tensors are to be on."""
    from pymerge.backends.device import default_device

    if name == "cuda":
        from pymerge import _cuda
        from pymerge.backends.cuda import CudaOps

        return CudaOps(), default_device(_cuda.EMULATED)
    from pymerge.backends.triton import TritonOps
    from pymerge.kernels.common.triton.launch import INTERPRETED

    return TritonOps(), default_device(INTERPRETED)


def load_device_ops(name: str, device: Any) -> Ops:
    """Return the backend's kernels for torch tensors that are on `device`, used where they are.

    Raises:
        BackendError: the backend was asked for by name and is not one of devices, or cannot run.
    """
    if name not in ("auto", *DEVICE_BACKENDS):
        raise BackendError(f"backend {name!r} does not merge tensors on {device}; move them with .cpu()")
    if name == "auto":
        # The last one says why it cannot run either.
        name = next((each for each in DEVICE_BACKENDS if not _BACKENDS[each]()), DEVICE_BACKENDS[-1])
    return _load_device(resolve_backend(name))[0]


def load_lanes(name: str, devices: Sequence[str], memory: int | None, staging: int) -> list[Any]:
    """Return devices with the kernels of a device's backend, for a merge's pipelines.

    Args:
        name: one of DEVICE_BACKENDS.
        devices: such as "cuda:0"; empty takes the current one.
        memory: bytes of each that may be used; None takes most of what is free.
        staging: bytes of the host that what one thread reads may take on its way to a device.

    Raises:
        BackendError: there is no such device.
    """
    from pymerge.backends.choice import free_share
    from pymerge.backends.lane import TorchLane, free_memory

    ops, default = _load_device(name)
    chosen = resolve_devices(name, devices) or [default]
    free = [free_share(free_memory(device)) if memory is None else memory for device in chosen]
    return [TorchLane(ops, device, room, staging // len(chosen)) for device, room in zip(chosen, free, strict=True)]


def resolve_devices(name: str, devices: Sequence[str], memory: int | None = None) -> list[Any]:
    """Return the torch devices of these names for a backend as `resolve_backend` returns it.

    Raises:
        BackendError: the backend is not one of devices, yet some or their `memory` are given; or there is no such
            device.
    """
    if (devices or memory is not None) and name not in DEVICE_BACKENDS:
        raise BackendError(
            f"backend {name!r} uses no GPU and none of its memory; add --backend {' or '.join(DEVICE_BACKENDS)}"
        )
    found = []
    for each in devices:
        import torch

        kind, _, index = each.partition(":")
        count = torch.cuda.device_count()
        if kind != "cuda" or not index.isdigit() or int(index) >= count:
            there = ", ".join(f"cuda:{i}" for i in range(count)) or "no GPU"
            raise BackendError(f"there is no device {each!r}; torch finds {there}")
        found.append(torch.device(each))
    return found
