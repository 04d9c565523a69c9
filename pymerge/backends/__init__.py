"""Backends: the same kernels on different hardware, agreeing bit for bit; and which one to use."""

from __future__ import annotations

from importlib.util import find_spec

from pymerge.backends.protocol import Ops
from pymerge.errors import BackendError

__all__ = ["available", "load_ops", "resolve_backend"]

#: Every name that `--backend` knows besides auto, with what stands against it where it cannot run.
_PLANNED = {
    "cuda": "CUDA kernels are not part of this release; use --backend cpu",
    "triton": "Triton kernels are not part of this release; use --backend cpu",
}


def available() -> list[tuple[str, bool, str]]:
    """(name, usable here, reason if not) of every backend."""
    cpu = find_spec("pymerge._core") is not None
    reason = "" if cpu else "the compiled core is missing; install pymerge with a C++20 compiler"
    return [("cpu", cpu, reason), ("reference", True, ""), *((name, False, why) for name, why in _PLANNED.items())]


def resolve_backend(name: str) -> str:
    """Return the backend that `name` ("auto" or a backend's own) stands for.

    Raises:
        BackendError: it was asked for by name and cannot run, or does not exist. Only auto chooses.
    """
    if name == "auto":
        return "cpu"
    for known, usable, reason in available():
        if known == name:
            if not usable:
                raise BackendError(f"backend {name!r} is not available: {reason}")
            return name
    names = ", ".join(known for known, _, _ in available())
    raise BackendError(f"unknown backend {name!r}; it is one of auto, {names}")


def load_ops(name: str, threads: int = 1) -> Ops:
    """Return the backend's kernels for tensors in memory; `name` as `resolve_backend` takes it."""
    if resolve_backend(name) == "reference":
        from pymerge.backends.reference import ReferenceOps

        return ReferenceOps()
    from pymerge.backends.cpu import CpuOps

    return CpuOps(threads)
