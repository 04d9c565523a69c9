"""Element types: the names of recipes and the codes of safetensors headers, in one table."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BY_CODE", "BY_NAME", "DType", "promote"]


@dataclass(frozen=True, slots=True)
class DType:
    """One element type.

    Attributes:
        name: the field's name, as recipes and config.json spell it ("bfloat16").
        code: the safetensors header's code ("BF16").
        bits: size of one element in bits (sub-byte types exist).
        mergeable: True for the floating types that kernels decode (F64, F32, F16, BF16).
    """

    name: str
    code: str
    bits: int
    mergeable: bool = False

    @property
    def itemsize(self) -> int:
        """Bytes of one element; only whole-byte types have one."""
        return self.bits // 8

    def __str__(self) -> str:
        return self.name


_TABLE = (
    DType("float64", "F64", 64, True),
    DType("float32", "F32", 32, True),
    DType("float16", "F16", 16, True),
    DType("bfloat16", "BF16", 16, True),
    DType("int64", "I64", 64),
    DType("int32", "I32", 32),
    DType("int16", "I16", 16),
    DType("int8", "I8", 8),
    DType("uint64", "U64", 64),
    DType("uint32", "U32", 32),
    DType("uint16", "U16", 16),
    DType("uint8", "U8", 8),
    DType("bool", "BOOL", 8),
    DType("complex64", "C64", 64),
    DType("float8_e5m2", "F8_E5M2", 8),
    DType("float8_e4m3fn", "F8_E4M3", 8),
    DType("float8_e8m0fnu", "F8_E8M0", 8),
    DType("float8_e5m2fnuz", "F8_E5M2FNUZ", 8),
    DType("float8_e4m3fnuz", "F8_E4M3FNUZ", 8),
    DType("float6_e2m3fn", "F6_E2M3", 6),
    DType("float6_e3m2fn", "F6_E3M2", 6),
    DType("float4_e2m1fn_x2", "F4", 4),
)

BY_CODE = {dtype.code: dtype for dtype in _TABLE}
BY_NAME = {dtype.name: dtype for dtype in _TABLE}


def promote(dtypes: tuple[DType, ...]) -> DType:
    """Return the float type that holds every value of all `dtypes` (bfloat16 + float16: float32)."""
    distinct = set(dtypes)
    if len(distinct) == 1:
        return dtypes[0]
    names = {dtype.name for dtype in distinct}
    return BY_NAME["float64" if "float64" in names else "float32"]
