"""dequantize: weights from codes of 8 or 4 bits and the scales of their blocks.

    fp8:    W[.., r, c] = value(codes[.., r, c]) * scales[.., r // R, c // C]
    MXFP4:  W[.., 32 g + i] = value(nibble(blocks[.., g, i // 2], i % 2)) * 2^(scales[.., g] - 127)

fp8. In: codes [.., rows, columns] of bytes, F8_E4M3 or F8_E5M2; scales [.., ceil(rows / R), ceil(columns / C)] of
float32, float16, bfloat16 or E8M0 (bytes); the last block of a row or column may be a part of one. (R, C) is (128, 128)
in blocks, (1, columns) per channel, (rows, columns) per tensor. Files call scales `weight_scale_inv` or `weight_scale`:
both are multiplied.

MXFP4 (OCP Microscaling Formats 1.0). In: blocks [.., groups, 16] of bytes, in each two codes of E2M1, the low nibble
first; scales [.., groups] of bytes, E8M0: powers of two, 255 is NaN.

Out: float32. Codes and scales are exact in float32. Their product is rounded once, to nearest even; MXFP4's is exact
but where it overflows (scales above 252). Infinities and NaN propagate; zeros keep their sign. Passes: codes and scales
once, the output once.
"""

from __future__ import annotations

import numpy as np

from ..common.convert import Array, decode

__all__ = ["MXFP4_GROUP", "decode_e2m1", "decode_e8m0", "decode_fp8", "run_fp8", "run_mxfp4"]

PASSES = 1
#: Values that share a scale.
MXFP4_GROUP = 32

#: Code of a safetensors header -> bits of the exponent, bits of the mantissa, whether the largest exponent is IEEE's.
_FORMATS = {"F8_E4M3": (4, 3, False), "F8_E5M2": (5, 2, True)}


def decode_fp8(codes: Array, kind: str) -> Array:
    """The values of bytes, float32; exact.

    F8_E5M2 has IEEE's infinities and NaN. F8_E4M3 ("fn") has no infinity, and NaN for all ones (0x7F, 0xFF) alone.
    """
    exponent_bits, mantissa_bits, ieee = _FORMATS[kind]
    bits = codes.astype(np.int32)
    exponent = bits >> mantissa_bits & (1 << exponent_bits) - 1
    mantissa = bits & (1 << mantissa_bits) - 1
    bias = (1 << exponent_bits - 1) - 1
    # Below the least exponent there is no leading one.
    significand = np.where(exponent == 0, mantissa, mantissa | 1 << mantissa_bits)
    values = np.ldexp(significand.astype(np.float32), np.maximum(exponent, 1) - bias - mantissa_bits)
    largest = exponent == (1 << exponent_bits) - 1
    if ieee:
        values = np.where(largest, np.where(mantissa == 0, np.float32(np.inf), np.float32(np.nan)), values)
    else:
        values = np.where(largest & (mantissa == (1 << mantissa_bits) - 1), np.float32(np.nan), values)
    result: Array = np.where(bits & 0x80, -values, values).astype(np.float32)
    return result


def decode_e2m1(codes: Array) -> Array:
    """The values of codes of 4 bits, float32: 0, 0.5, 1, 1.5, 2, 3, 4, 6, and these with a sign."""
    bits = codes.astype(np.int32)
    exponent, mantissa = bits >> 1 & 3, bits & 1
    values = np.where(exponent == 0, mantissa * 0.5, np.ldexp(1 + mantissa * 0.5, exponent - 1))
    result: Array = np.where(bits & 8, -values, values).astype(np.float32)
    return result


def decode_e8m0(codes: Array) -> Array:
    """The values of bytes, float32: powers of two from 2^-127, which is denormal, to 2^127; 255 is NaN."""
    values = np.ldexp(np.float32(1), np.minimum(codes, 254).astype(np.int32) - 127)
    result: Array = np.where(codes == 255, np.float32(np.nan), values)
    return result


def run_fp8(codes: Array, scales: Array, block: tuple[int, int], kind: str) -> Array:
    """The contract for codes of 8 bits, bit for bit.

    Args:
        codes: [.., rows, columns] uint8.
        scales: [.., ceil(rows / block[0]), ceil(columns / block[1])], float32, float16 or bfloat16; uint8: E8M0.
        block: rows and columns that share a scale.
        kind: of the codes, as safetensors name it.

    Returns:
        [.., rows, columns] float32.
    """
    rows, columns = codes.shape[-2:]
    grid = (-(-rows // block[0]), -(-columns // block[1]))
    if scales.shape != (*codes.shape[:-2], *grid):
        raise ValueError(f"scales are {list(scales.shape)}, codes {list(codes.shape)} in blocks of {list(block)}")
    values = decode_e8m0(scales) if scales.dtype == np.uint8 else decode(scales, "float32")
    spread = values.repeat(block[0], axis=-2)[..., :rows, :]
    spread = spread.repeat(block[1], axis=-1)[..., :columns]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        result: Array = decode_fp8(codes, kind) * spread
    return result


def run_mxfp4(blocks: Array, scales: Array) -> Array:
    """The contract for codes of 4 bits, bit for bit.

    Args:
        blocks: [.., groups, 16] uint8.
        scales: [.., groups] uint8.

    Returns:
        [.., 32 groups] float32, in the order of the file.
    """
    if blocks.shape != (*scales.shape, MXFP4_GROUP // 2):
        raise ValueError(f"scales are {list(scales.shape)}, blocks {list(blocks.shape)}")
    codes = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*scales.shape, MXFP4_GROUP)
    with np.errstate(over="ignore", invalid="ignore"):
        values = decode_e2m1(codes) * decode_e8m0(scales)[..., None]
    result: Array = values.reshape(*scales.shape[:-1], scales.shape[-1] * MXFP4_GROUP)
    return result
