"""numpy and torch arrays as numpy arrays of the kernels' types, and back; torch is never imported here
unless the caller already has it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from pymerge.errors import DTypeError
from pymerge.kernels.common.convert import NUMPY_DTYPES

__all__ = ["from_numpy", "to_numpy"]


def _is_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_numpy(value: Any) -> Any:
    """A contiguous numpy array of the same elements (bfloat16 as ml_dtypes' type), sharing memory if it can.

    Raises:
        DTypeError: a torch tensor that is not on the CPU.
    """
    if not _is_torch(value):
        return np.asarray(value, order="C")
    torch = sys.modules["torch"]
    if value.device.type != "cpu":
        raise DTypeError(f"a tensor on {value.device} cannot be merged by this release; move it with .cpu()")
    tensor = value.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(NUMPY_DTYPES["bfloat16"])
    return tensor.numpy()


def from_numpy(array: Any, like: Any) -> Any:
    """`array` itself, or a torch tensor over its memory if `like` is one."""
    if not _is_torch(like):
        return array
    torch = sys.modules["torch"]
    if array.dtype == NUMPY_DTYPES["bfloat16"]:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
