"""What may stand in a pickle of weights: the names that torch.save writes, and plain values in their place.

The table is exact. A name that is not in it is refused, with what to do where it is known what the name stands for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pymerge.dtypes import BY_NAME, DType
from pymerge.errors import DTypeError, FormatError

__all__ = ["Call", "Storage", "Tensor", "find_global", "read_storage"]

#: Dimensions at most, as in torch.
_DIMS = 64


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of bytes that tensors are views of.

    Attributes:
        key: its name in the file.
        dtype: of its elements; None for bare bytes.
    """

    key: str
    dtype: DType | None
    nbytes: int


# Told from each other by identity: two tensors of one shape are two.
@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A view of a storage; `offset` and `strides` count elements."""

    storage: Storage
    dtype: DType
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A function or class that a pickle may call: `make` takes its arguments, and the path for messages."""

    name: str
    make: Callable[[tuple[Any, ...], object], object]


@dataclass(frozen=True, slots=True)
class _StorageType:
    """A class of storages; its elements' type as torch names it, None for bare bytes."""

    dtype: str | None


def find_global(module: str, name: str, path: object) -> object:
    """The stand-in for what a pickle calls `module.name`.

    Raises:
        FormatError: it is no part of weights.
        DTypeError: it is of a kind of tensors that cannot be merged.
    """
    full = f"{module}.{name}"
    found = _GLOBALS.get(full)
    if found is not None:
        return found
    if full in _OTHER_TENSORS:
        raise DTypeError(f"{path}: holds {_OTHER_TENSORS[full]}")
    raise FormatError(
        f'{path}: its pickle asks for "{full}", which is no part of weights; nothing of it was run. '
        "If it holds a whole model or a trainer's state and you trust it, load it with torch and save the state dict "
        "alone (safetensors.torch.save_file)"
    )


def read_storage(identity: object, path: object) -> Storage:
    """What a pickle refers to as being outside of itself, as torch writes it: always a storage.

    Raises:
        FormatError: it is something else.
        DTypeError: of a type that cannot be held.
    """
    # Legacy files have one entry more: a view of another storage, which torch 0.4 stopped writing.
    if isinstance(identity, tuple) and len(identity) == 6 and identity[5] is None:
        identity = identity[:5]
    match identity:
        case ("storage", _StorageType(dtype=code), str(key), str(), int(count)) if count >= 0:
            dtype = None if code is None else _find_dtype(code, path)
            return Storage(key, dtype, count * (1 if dtype is None else dtype.itemsize))
    raise FormatError(f"{path}: its pickle refers to something that is no storage; save the state dict alone")


def _find_dtype(code: str, path: object) -> DType:
    dtype = BY_NAME.get(code)
    if dtype is None or dtype.bits % 8:
        raise DTypeError(
            f"{path}: holds tensors of the type {code}, which safetensors files cannot hold; convert them first"
        )
    return dtype


@dataclass(frozen=True, slots=True)
class _DType:
    """`torch.float32` and the like, where a pickle names one."""

    code: str


def _rebuild(arguments: tuple[Any, ...], path: object) -> Tensor:
    """_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata]); once the first four."""
    match arguments:
        case (Storage(dtype=DType() as dtype) as storage, offset, shape, strides, *rest):
            return _view(storage, dtype, offset, shape, strides, rest[2:], path)
    raise _damaged(path)


def _rebuild_typed(arguments: tuple[Any, ...], path: object) -> Tensor:
    """_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype[, metadata]), of younger types."""
    match arguments:
        case (Storage() as storage, offset, shape, strides, _, _, _DType(code=code), *rest):
            return _view(storage, _find_dtype(code, path), offset, shape, strides, rest, path)
    raise _damaged(path)


def _view(
    storage: Storage, dtype: DType, offset: object, shape: object, strides: object, metadata: list[Any], path: object
) -> Tensor:
    sizes, steps = _read_sizes(shape), _read_sizes(strides)
    if not isinstance(offset, int) or offset < 0 or sizes is None or steps is None or len(sizes) != len(steps):
        raise _damaged(path)
    if any(metadata):
        raise DTypeError(f"{path}: holds a conjugate or negated view; save its .resolve_conj().resolve_neg() instead")
    return Tensor(storage, dtype, offset, sizes, steps)


def _read_sizes(value: object) -> tuple[int, ...] | None:
    """A shape or its strides; None if it is neither, or nothing that memory could hold even without its zeros."""
    if not isinstance(value, tuple) or len(value) > _DIMS or not all(type(size) is int for size in value):
        return None
    return value if all(size >= 0 for size in value) and math.prod(max(1, size) for size in value) < 1 << 63 else None


def _parameter(arguments: tuple[Any, ...], path: object) -> Tensor:
    """_rebuild_parameter(data, requires_grad, hooks[, state]): its data."""
    match arguments:
        case (Tensor() as tensor, *_):
            return tensor
    raise _damaged(path)


def _subclass(arguments: tuple[Any, ...], path: object) -> object:
    """_rebuild_from_type_v2(function, type, arguments, state): a plain tensor with attributes."""
    match arguments:
        case (Call() as call, Call(name="torch.Tensor" | "torch.nn.parameter.Parameter"), tuple(inner), _):
            if call.name in _REBUILDERS:
                return call.make(inner, path)
    raise _damaged(path)


def _mapping(arguments: tuple[Any, ...], path: object) -> dict[Any, Any]:
    if arguments:
        raise _damaged(path)
    return {}


def _same(arguments: tuple[Any, ...], path: object) -> object:
    """torch.Size and torch.device: what they are made of."""
    if len(arguments) != 1:
        raise _damaged(path)
    return arguments[0]


def _refuse(arguments: tuple[Any, ...], path: object) -> object:
    raise _damaged(path)


def _damaged(path: object) -> FormatError:
    return FormatError(f"{path}: its pickle describes a tensor as torch does not; is the file damaged?")


_REBUILDERS: Mapping[str, Callable[[tuple[Any, ...], object], object]] = {
    "torch._utils._rebuild_tensor": _rebuild,
    "torch._utils._rebuild_tensor_v2": _rebuild,
    "torch._utils._rebuild_tensor_v3": _rebuild_typed,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
_CALLS: Mapping[str, Callable[[tuple[Any, ...], object], object]] = {
    **_REBUILDERS,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "torch.Tensor": _refuse,
    "torch.nn.parameter.Parameter": _refuse,
    "torch.Size": _same,
    "torch.device": _same,
    "collections.OrderedDict": _mapping,
}
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
_UNTYPED = ("torch.UntypedStorage", "torch.storage.UntypedStorage", "torch.storage._UntypedStorage")
_DTYPES = (*BY_NAME, "complex128")
_GLOBALS: Mapping[str, object] = {
    **{name: Call(name, make) for name, make in _CALLS.items()},
    **{
        f"{module}.{name}": _StorageType(code) for module in ("torch", "torch.cuda") for name, code in _STORAGES.items()
    },
    **{name: _StorageType(None) for name in _UNTYPED},
    **{f"torch.{code}": _DType(code) for code in _DTYPES},
}

_DEQUANTIZE = "quantized tensors, whose codes cannot be merged; save what .dequantize() gives"
#: Tensors that are no view of a storage -> what to do about them.
_OTHER_TENSORS = {
    "torch._utils._rebuild_sparse_tensor": "sparse tensors; save what .to_dense() gives",
    "torch._utils._rebuild_sparse_csr_tensor": "sparse tensors; save what .to_dense() gives",
    "torch._utils._rebuild_qtensor": _DEQUANTIZE,
    "torch._utils._rebuild_nested_tensor": "nested tensors; save each tensor by its own name",
    "torch._utils._rebuild_meta_tensor_no_storage": "tensors without data (device meta); save the loaded model's",
    "torch._utils._rebuild_device_tensor_from_numpy": "tensors of a device that torch saves as numpy arrays; "
    "move them to the CPU before saving",
    "torch._utils._rebuild_wrapper_subclass": "tensors of a class of their own; save them as plain tensors",
    "numpy.core.multiarray._reconstruct": "numpy arrays; save them as tensors (torch.from_numpy)",
    "numpy._core.multiarray._reconstruct": "numpy arrays; save them as tensors (torch.from_numpy)",
    **{
        f"torch.{name}": _DEQUANTIZE
        for name in ("QInt8Storage", "QUInt8Storage", "QInt32Storage", "QUInt4x2Storage", "QUInt2x4Storage")
    },
}
