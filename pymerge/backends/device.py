"""Which device kernels run on where the caller's tensors do not say."""

from __future__ import annotations

import torch

__all__ = ["default_device", "why_no_device"]


def why_no_device() -> str:
    """What stands against running on a device, empty if nothing does."""
    if torch.cuda.is_available():
        return ""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built without CUDA; install a build for your GPU, or use --backend cpu"
    return "torch finds no GPU; see that nvidia-smi lists one, or use --backend cpu"


def default_device(emulated: bool) -> torch.device:
    """The current CUDA device; the CPU where kernels are emulated or interpreted."""
    return torch.device("cpu" if emulated else "cuda")
