"""What a merge reads: stored tensors, and tensors that are derived from stored ones while they are read.

A source has elements of one mergeable dtype, whatever is stored. What deriving means, to the bit, stands in
kernels/<name>/spec.py; `pymerge/execute/tensors.py` and `derived.py` turn sources into tensors of the compiled core,
and into arrays.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from pymerge.checkpoint.values import Source, StoredTensor
from pymerge.dtypes import BY_NAME, DType

__all__ = [
    "Dequantized",
    "Derived",
    "Given",
    "LowRank",
    "Noise",
    "Packed",
    "RowChoice",
    "Rows",
    "Update",
    "describe_source",
    "list_stored",
]

_FLOAT32 = BY_NAME["float32"]
#: Form of `Packed` -> (bytes, elements) of a block.
PACKED = {"F32": (4, 1), "F16": (2, 1), "BF16": (2, 1), "F32_PLUS_ONE": (4, 1), "Q8_0": (34, 32)}
#: Bytes of matrices that were turned and are kept (TurnedDerived in kernels/dequantize/derived.h).
_TURNED = 64 << 20


@dataclass(frozen=True, slots=True, eq=False)
class RowChoice:
    """For each row of a new matrix, the rows of which tensors it is the mean of.

    Row r is the mean (float32, in the order listed) of rows `rows[k]` of parts `parts[k]`, where
    starts[r] <= k < starts[r + 1]; one entry is a plain copy, none a row of zeros. rows[k] = -1 stands for
    the mean of all rows of that part.

    Attributes:
        starts: array("q"), [rows + 1].
        parts, rows: array("q"), [starts[-1]].
    """

    starts: array[int]
    parts: array[int]
    rows: array[int]

    @property
    def is_plain(self) -> bool:
        """Whether every row is a copy of one, or zeros."""
        single = all(end - start <= 1 for start, end in zip(self.starts, self.starts[1:], strict=False))
        return single and -1 not in self.rows

    @property
    def digest(self) -> str:
        """What tells it from others."""
        digest = hashlib.blake2b(digest_size=16)
        for numbers in (self.starts, self.parts, self.rows):
            digest.update(repr(len(numbers)).encode() + numbers.tobytes())
        return digest.hexdigest()

    @property
    def is_identity(self) -> bool:
        """Whether row r is row r of the first part, for all of them."""
        size = len(self.starts) - 1
        return len(self.rows) == size and not any(self.parts) and self.rows == array("q", range(size))


class Derived:
    """What derived sources have in common."""

    __slots__ = ()
    name: str
    shape: tuple[int, ...]

    @property
    def dtype(self) -> DType:
        return _FLOAT32

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return self.count * self.dtype.itemsize


@dataclass(frozen=True, slots=True, eq=False)
class Rows(Derived):
    """Rows of matrices (or elements of vectors, then rows of one), put together anew: kernels/rows.

    `shape` is [rows, ...] as the matrices have it, unless another one of as many elements is given.
    """

    name: str
    matrices: tuple[Source, ...]
    choice: RowChoice
    shape: tuple[int, ...] = ()
    plain: bool = field(init=False)

    def __post_init__(self) -> None:
        """Work out what does not change."""
        if not self.shape:
            object.__setattr__(self, "shape", (len(self.choice.starts) - 1, *self.matrices[0].shape[1:]))
        same = len({matrix.dtype for matrix in self.matrices}) == 1
        object.__setattr__(self, "plain", same and self.choice.is_plain)

    @property
    def dtype(self) -> DType:
        """The matrices' if rows are only moved, else float32."""
        return self.matrices[0].dtype if self.plain else _FLOAT32

    @property
    def origin(self) -> DType:
        """That of the first matrix, the model's own."""
        return self.matrices[0].origin

    @property
    def parts(self) -> tuple[Source, ...]:
        """The matrices."""
        return self.matrices

    @property
    def settings(self) -> tuple[object, ...]:
        """The choice."""
        return (self.choice.digest,)


@dataclass(frozen=True, slots=True)
class Update:
    """scale * B A; see kernels/low_rank/spec.py for `transposed`."""

    a: Source
    b: Source
    rank: int
    scale: float
    transposed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class LowRank(Derived):
    """A matrix with low-rank updates added: kernels/low_rank. Without `base`, the updates alone."""

    name: str
    shape: tuple[int, ...]
    base: Source | None
    updates: tuple[Update, ...]

    @property
    def origin(self) -> DType:
        """That of the base; the product's own where there is none."""
        return self.base.origin if self.base else self.updates[0].a.origin

    @property
    def parts(self) -> tuple[Source, ...]:
        """The base, and the factors of each update."""
        factors = tuple(factor for update in self.updates for factor in (update.a, update.b))
        return (self.base, *factors) if self.base else factors

    @property
    def settings(self) -> tuple[object, ...]:
        """Ranks and scales."""
        return tuple((update.rank, update.scale, update.transposed) for update in self.updates)


@dataclass(frozen=True, slots=True, eq=False)
class Dequantized(Derived):
    """A weight that is stored as codes and scales: kernels/dequantize.

    Attributes:
        scheme: "fp8"; "mxfp4"; else codes are blocks that hold their scales, of the format of that name in GGUF files.
        origin: what the weight was before, or is taken for.
        scales: of fp8 and MXFP4.
        block: rows and columns that share a scale, of fp8.
    """

    name: str
    shape: tuple[int, ...]
    scheme: str
    codes: Source
    origin: DType
    scales: Source | None = None
    block: tuple[int, int] | None = None

    @property
    def held(self) -> int:
        """Bytes that are held while it is read: scales as float32; of MXFP4 some matrices, turned."""
        if self.scales is None:
            return 0
        if self.block is not None:
            return 4 * self.scales.count
        matrix = self.shape[-1] * self.shape[-2] * 9 // 16
        return min(max(_TURNED, 2 * matrix), self.codes.nbytes + self.scales.nbytes)

    @property
    def parts(self) -> tuple[Source, ...]:
        """Codes and scales."""
        return (self.codes, self.scales) if self.scales else (self.codes,)

    @property
    def settings(self) -> tuple[object, ...]:
        """How codes are read."""
        return (self.scheme, self.shape, self.block)


@dataclass(frozen=True, slots=True, eq=False)
class Noise(Derived):
    """Numbers that are drawn for each element, added to a tensor or alone: kernels/noise.

    Attributes:
        base: what they are added to; None for zeros.
        key: of the draws, 64 bits.
        scale: standard deviation of "normal", bound of "uniform" numbers.
    """

    name: str
    shape: tuple[int, ...]
    base: Source | None
    key: int
    scale: float
    kind: str = "normal"

    @property
    def origin(self) -> DType:
        """That of the base; its own where there is none."""
        return self.base.origin if self.base else self.dtype

    @property
    def parts(self) -> tuple[Source, ...]:
        """The base."""
        return (self.base,) if self.base else ()

    @property
    def settings(self) -> tuple[object, ...]:
        """What is drawn."""
        return (self.key, self.scale, self.kind, self.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Given(Derived):
    """Numbers that are known before a weight is read; few, for they stay in memory.

    Attributes:
        data: array("f"); None as long as they are still to be worked out.
    """

    name: str
    shape: tuple[int, ...]
    data: array[float] | None

    @property
    def origin(self) -> DType:
        """float32."""
        return self.dtype

    @property
    def parts(self) -> tuple[()]:
        """None: it is here."""
        return ()

    @property
    def settings(self) -> tuple[object, ...]:
        """What tells the numbers from others."""
        known = b"" if self.data is None else self.data.tobytes()
        return (self.shape, hashlib.blake2b(known, digest_size=16).hexdigest())


@dataclass(frozen=True, slots=True, eq=False)
class Packed(Derived):
    """Bytes of a tensor as GGUF files have it: kernels/pack. Only copied into an output, never an input of a kernel.

    Attributes:
        name: in the file.
        form: of `FORMATS` of the specification.
        source: the elements.
        elements: their shape.
        alignment: bytes of which a multiple is filled, with zeros at the end.
        shape: of the bytes.
    """

    name: str
    form: str
    source: Source
    elements: tuple[int, ...]
    alignment: int
    shape: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Work out what does not change."""
        size, block = PACKED[self.form]
        nbytes = math.prod(self.elements) // block * size
        object.__setattr__(self, "shape", (-(-nbytes // self.alignment) * self.alignment,))

    @property
    def dtype(self) -> DType:
        """Bytes."""
        return BY_NAME["uint8"]

    @property
    def origin(self) -> DType:
        """Bytes."""
        return self.dtype

    @property
    def parts(self) -> tuple[Source, ...]:
        """The elements."""
        return (self.source,)

    @property
    def settings(self) -> tuple[object, ...]:
        """How they are packed."""
        return (self.form, self.alignment)


def list_stored(source: Source) -> Iterator[StoredTensor]:
    """The stored tensors that a source is read from, in order."""
    if isinstance(source, StoredTensor):
        yield source
    for part in source.parts:
        yield from list_stored(part)


def describe_source(source: Source) -> tuple[object, ...]:
    """What a source's elements depend on besides the data, as plain values that print alike whenever they are alike."""
    return (type(source).__name__, source.settings, *map(describe_source, source.parts))
