"""Which device kernels run on where the caller's tensors do not say."""

from __future__ import annotations

import torch
import triton

__all__ = ["default_device", "why_no_device"]


def _is_interpreted() -> bool:
    """Whether TRITON_INTERPRET=1: kernels then run on the CPU, slowly, for whoever debugs them."""
    return bool(triton.knobs.runtime.interpret)


def why_no_device() -> str:
    """What stands against running on a device, empty if nothing does."""
    if _is_interpreted() or torch.cuda.is_available():
        return ""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built without CUDA; install a build for your GPU, or use --backend cpu"
    return "torch finds no GPU; see that nvidia-smi lists one, or use --backend cpu"


def default_device() -> torch.device:
    """The current CUDA device; the CPU under Triton's interpreter."""
    return torch.device("cpu" if _is_interpreted() else "cuda")
