"""numpy arrays and torch tensors in memory as kernels take them, and results of the caller's kind; torch is
never imported here unless the caller already has it.

What is in host memory is a numpy array inside; what is on a device stays a torch tensor there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from pymerge.backends import load_device_ops, load_ops
from pymerge.backends.protocol import Ops
from pymerge.errors import DTypeError
from pymerge.kernels.common.convert import NUMPY_DTYPES

__all__ = ["copy_array", "first_difference", "from_array", "is_integer", "kind_of", "make_array", "ops_for", "to_array"]

_KINDS = {dtype: name for name, dtype in NUMPY_DTYPES.items()}


def _is_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_array(value: Any) -> Any:
    """A contiguous array of the same elements (bfloat16 as ml_dtypes' type), sharing memory if it can.

    Raises:
        DTypeError: a tensor of a layout or type that no array has.
    """
    if not _is_torch(value):
        return np.asarray(value, order="C")
    torch = sys.modules["torch"]
    if value.layout != torch.strided or value.is_quantized:
        kind = "quantized" if value.is_quantized else str(value.layout).removeprefix("torch.")
        raise DTypeError(f"a {kind} tensor cannot be merged; give a dense one of floats")
    tensor = value.detach().resolve_conj().resolve_neg().contiguous()
    if tensor.device.type != "cpu":
        return tensor
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(NUMPY_DTYPES["bfloat16"])
    try:
        return tensor.numpy()
    except TypeError:  # what numpy has no type for
        raise DTypeError(
            f"tensors of {str(tensor.dtype).removeprefix('torch.')} cannot be merged; convert them to one of "
            f"{', '.join(NUMPY_DTYPES)}"
        ) from None


def from_array(array: Any, like: Any) -> Any:
    """`array` itself, or a torch tensor over its memory if `like` is one."""
    if _is_torch(array) or not _is_torch(like):
        return array
    torch = sys.modules["torch"]
    if array.dtype == NUMPY_DTYPES["bfloat16"]:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def kind_of(array: Any) -> str | None:
    """The name of a mergeable dtype; None of any other."""
    if not _is_torch(array):
        return _KINDS.get(array.dtype)
    name = str(array.dtype).removeprefix("torch.")
    return name if name in NUMPY_DTYPES else None


def is_integer(array: Any) -> bool:
    """Whether its elements are integers or bools."""
    if not _is_torch(array):
        return array.dtype.kind in "iub"
    return not (array.dtype.is_floating_point or array.dtype.is_complex)


def make_array(count: int, kind: str, like: Any) -> Any:
    """A new flat array of a mergeable dtype or int8, where `like` is."""
    if not _is_torch(like):
        return np.empty(count, NUMPY_DTYPES.get(kind, kind))
    torch = sys.modules["torch"]
    return torch.empty(count, dtype=getattr(torch, kind), device=like.device)


def copy_array(array: Any) -> Any:
    """Its elements in new memory."""
    return array.clone() if _is_torch(array) else array.copy()


def first_difference(left: Any, right: Any) -> int | None:
    """The least flat index at which two arrays of one shape differ; None where they do not."""
    differs = (left != right).reshape(-1)
    if not bool(differs.any()):
        return None
    return int(differs.nonzero()[0].item() if _is_torch(differs) else np.flatnonzero(differs)[0])


def ops_for(arrays: Iterable[Any], backend: str, threads: int = 1) -> Ops:
    """The backend's kernels for arrays where they are.

    Raises:
        BackendError: the backend does not work there.
        DTypeError: they are in more than one place.
    """
    places = {str(array.device) if _is_torch(array) else "cpu" for array in arrays}
    if len(places) > 1:
        raise DTypeError(f"tensors on {' and '.join(sorted(places))} cannot be merged; move them to one device")
    place = places.pop() if places else "cpu"
    return load_ops(backend, threads) if place == "cpu" else load_device_ops(backend, place)
