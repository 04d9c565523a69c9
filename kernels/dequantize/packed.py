"""dequantize, of blocks that hold their own scales: what GGUF files store besides floats.

    W[e] = d code[e]                        Q4_0, Q5_0, Q8_0    codes around zero
    W[e] = d code[e] + m                    Q4_1, Q5_1          codes from zero
    W[e] = (d s[e // 16]) code[e]           Q3_K, Q6_K          s: integers around zero, of 6 and 8 bits
    W[e] = (d s[g]) code[e] - (m o[g])      Q2_K, Q4_K, Q5_K    g = e // 16, of Q2_K, else e // 32; s, o from zero
    W[e] = x[e] - 1                         F32_LESS_ONE        norms of models that add one to them

In: blocks [n, bytes]. `FORMATS` says how many elements and bytes a block of each has, `_LAYOUTS` where its fields are;
d and m are float16. Codes lie in planes: of a byte's low, then its next bits, for a run of bytes after the other; what
a code has above that is one more plane, of single bits or pairs. Out: [n, elements] float32, in the order of the
formulas, each product and sum rounded once to float32. Passes: blocks once, the output once.
"""

from __future__ import annotations

import numpy as np

from ..common.convert import Array

__all__ = ["FORMATS", "run"]

#: Format -> (elements, bytes) of a block.
FORMATS: dict[str, tuple[int, int]] = {
    "F32_LESS_ONE": (1, 4),
    "Q8_0": (32, 34),
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
}

#: Format -> first byte of each field. "low": planes of codes; "high": the bits above; "s": of groups.
_LAYOUTS: dict[str, dict[str, int]] = {
    "Q8_0": {"d": 0, "low": 2},
    "Q4_0": {"d": 0, "low": 2},
    "Q4_1": {"d": 0, "m": 2, "low": 4},
    "Q5_0": {"d": 0, "high": 2, "low": 6},
    "Q5_1": {"d": 0, "m": 2, "high": 4, "low": 8},
    "Q2_K": {"s": 0, "low": 16, "d": 80, "m": 82},
    "Q3_K": {"high": 0, "low": 32, "s": 96, "d": 108},
    "Q4_K": {"d": 0, "m": 2, "s": 4, "low": 16},
    "Q5_K": {"d": 0, "m": 2, "s": 4, "high": 16, "low": 48},
    "Q6_K": {"low": 0, "high": 128, "s": 192, "d": 208},
}
#: Format -> (bits of "low", bytes of a run, bits of "high", bytes of its run).
_PLANES = {
    "Q4_0": (4, 16, 0, 0),
    "Q4_1": (4, 16, 0, 0),
    "Q2_K": (2, 32, 0, 0),
    "Q3_K": (2, 32, 1, 32),
    "Q4_K": (4, 32, 0, 0),
    "Q5_K": (4, 32, 1, 32),
    "Q6_K": (4, 64, 2, 32),
}
#: What is zero among codes.
_ZERO = {"Q4_0": 8, "Q5_0": 16, "Q3_K": 4, "Q6_K": 32}


def run(blocks: Array, name: str) -> Array:
    """The contract, bit for bit; blocks [n, bytes] uint8 to [n, elements] float32."""
    elements, size = FORMATS[name]
    if blocks.ndim != 2 or blocks.shape[1] != size:
        raise ValueError(f"blocks of {name} have {size} bytes, these are {list(blocks.shape)}")
    with np.errstate(all="ignore"):
        if name == "F32_LESS_ONE":
            less: Array = np.ascontiguousarray(blocks).view(np.float32) - np.float32(1)
            return less
        fields = _LAYOUTS[name]
        codes = _codes(blocks, name).astype(np.float32)
        d = _half(blocks, fields["d"])
        m = _half(blocks, fields["m"]) if "m" in fields else None
        if "s" not in fields:
            products = d * codes
            plain: Array = products if m is None else products + m
            return plain
        scales, offsets = _GROUPS[name](blocks[:, fields["s"] :].astype(np.int32))
        grouped = codes.reshape(len(blocks), scales.shape[1], -1)
        values = (d * scales.astype(np.float32))[..., None] * grouped
        if m is not None and offsets is not None:
            values = values - (m * offsets.astype(np.float32))[..., None]
    result: Array = values.reshape(-1, elements)
    return result


def _half(blocks: Array, at: int) -> Array:
    """A float16 of each block, as [n, 1] float32."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)


def _codes(blocks: Array, name: str) -> Array:
    """The integers that are scaled, [n, elements]."""
    elements, _ = FORMATS[name]
    fields = _LAYOUTS[name]
    if name == "Q8_0":
        signed: Array = np.ascontiguousarray(blocks[:, fields["low"] :]).view(np.int8)
        return signed
    if name in ("Q5_0", "Q5_1"):
        low = _read_planes(blocks, fields["low"], 4, 16, elements)
        # One bit each, in order.
        bytes_ = blocks[:, fields["high"] : fields["high"] + 4, None].astype(np.int32)
        codes = low | (bytes_ >> np.arange(8) & 1).reshape(-1, elements) << 4
    else:
        bits, run_, high_bits, high_run = _PLANES[name]
        codes = _read_planes(blocks, fields["low"], bits, run_, elements)
        if high_bits:
            codes = codes | _read_planes(blocks, fields["high"], high_bits, high_run, elements) << bits
    around_zero: Array = codes - _ZERO.get(name, 0)
    return around_zero


def _read_planes(blocks: Array, at: int, bits: int, run_: int, elements: int) -> Array:
    """Codes of runs of bytes: of each run the lowest bits of all bytes first, then the next ones; [n, elements]."""
    per_byte = 8 // bits
    stored = blocks[:, at : at + elements // per_byte].astype(np.int32).reshape(len(blocks), -1, 1, run_)
    planes = stored >> (bits * np.arange(per_byte))[:, None] & (1 << bits) - 1
    codes: Array = planes.reshape(len(blocks), elements)
    return codes


def _groups_of_nibbles(s: Array) -> tuple[Array, Array | None]:
    return s[:, :16] & 15, s[:, :16] >> 4


def _groups_of_six_bits_around_zero(s: Array) -> tuple[Array, Array | None]:
    """Sixteen: low nibbles, then high ones, of 8 bytes; above them pairs of bits, in four planes of 4 bytes."""
    low = np.concatenate([s[:, :8] & 15, s[:, :8] >> 4], axis=1)
    high = np.concatenate([s[:, 8:12] >> shift & 3 for shift in (0, 2, 4, 6)], axis=1)
    return (low | high << 4) - 32, None


def _groups_of_six_bits(s: Array) -> tuple[Array, Array | None]:
    """Eight scales and eight offsets: four of each in six bits of a byte; of the others two bits are above these."""
    first, second, rest = s[:, 0:4], s[:, 4:8], s[:, 8:12]
    scales = np.concatenate([first & 63, rest & 15 | first >> 6 << 4], axis=1)
    offsets = np.concatenate([second & 63, rest >> 4 | second >> 6 << 4], axis=1)
    return scales, offsets


def _groups_of_bytes(s: Array) -> tuple[Array, Array | None]:
    return s[:, :16].astype(np.uint8).view(np.int8), None


_GROUPS = {
    "Q2_K": _groups_of_nibbles,
    "Q3_K": _groups_of_six_bits_around_zero,
    "Q4_K": _groups_of_six_bits,
    "Q5_K": _groups_of_six_bits,
    "Q6_K": _groups_of_bytes,
}
