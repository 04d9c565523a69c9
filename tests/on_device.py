"""A device's backend under test: numpy arrays in and out, guards around outputs, starts off every alignment."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import kernel_cases as cases
import torch

from pymerge.backends.hosted import HostedOps
from pymerge.backends.protocol import Ops
from pymerge.ops import Combine, MaskRule, Measure

_GUARD = 16


def _patch_once() -> None:
    """Have the interpreter patch triton.language once a launch, not at every call between functions: half its time."""
    from triton.language import core
    from triton.runtime import interpreter

    patch = interpreter._patch_lang

    def patch_once(fn: Any) -> Any:
        langs = [value for value in fn.__globals__.values() if value in (interpreter.tl, core)]
        return patch(fn) if any(core.is_builtin(lang.load) for lang in langs) else interpreter._LangPatchScope()

    interpreter._patch_lang = patch_once


if cases.INTERPRETED:
    _patch_once()


class GuardedOps:
    """`ops` on tensors of its device, moved: odd lengths start one element off, outputs lie between guards."""

    def __init__(self, ops: Ops) -> None:
        self.name = ops.name
        self.compiles_at_launch = ops.compiles_at_launch
        self._ops = ops

    @staticmethod
    def _room(like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shift = _GUARD + like.numel() % 2
        whole = torch.full((like.numel() + 2 * _GUARD + 1,), 77, dtype=like.dtype, device=like.device)
        return whole, whole[shift : shift + like.numel()]

    def _moved(self, operands: Sequence[Any]) -> list[Any]:
        moved: list[Any] = []
        for operand in operands:
            if operand is not None:
                _, inner = self._room(operand)
                inner.copy_(operand)
                operand = inner
            moved.append(operand)
        return moved

    def _into(self, out: torch.Tensor, run: Any) -> None:
        whole, inner = self._room(out)
        run(inner)
        out.copy_(inner)
        inner.fill_(77)
        assert bool((whole == 77).all()), "wrote outside of the output"

    def measure(self, request: Measure, operands: Sequence[Any], compute: Any) -> object:
        return self._ops.measure(request, self._moved(operands), compute)

    def combine(self, request: Combine, operands: Sequence[Any], compute: Any, out: Any) -> None:
        moved = self._moved(operands)
        self._into(out, lambda inner: self._ops.combine(request, moved, compute, inner))

    def mask(self, rule: MaskRule, delta: Any, out: Any) -> None:
        (moved,) = self._moved([delta])
        self._into(out, lambda inner: self._ops.mask(rule, moved, inner))


def load_emulated() -> None:
    """Have PYMERGE_EMULATED_CUDA, the emulated kernels' folder, stand for the compiled CUDA kernels."""
    import pymerge

    (file,) = Path(os.environ["PYMERGE_EMULATED_CUDA"]).glob(f"_cuda*{EXTENSION_SUFFIXES[0]}")
    spec = spec_from_file_location("pymerge._cuda", file)
    assert spec is not None
    assert spec.loader is not None
    sys.modules["pymerge._cuda"] = pymerge._cuda = module_from_spec(spec)
    spec.loader.exec_module(pymerge._cuda)
    assert pymerge._cuda.EMULATED


def make_ops(backend: str) -> Ops:
    """The backend of this name, guarded, for numpy arrays."""
    if backend == "cuda":
        from pymerge.backends.cuda import CudaOps

        return HostedOps(GuardedOps(CudaOps()), torch.device("cpu" if cases.EMULATED else "cuda"))
    from pymerge.backends.triton import TritonOps

    return HostedOps(GuardedOps(TritonOps()), torch.device("cpu" if cases.INTERPRETED else "cuda"))
