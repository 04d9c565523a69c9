"""The best matrix of low rank near a given one: all singular values, or a randomized sketch of the largest.

The sketch is algorithm 4.4 of Halko, Martinsson, Tropp, "Finding structure with randomness" (2011): the range of
(D D^T)^q D W for a matrix W of normal draws, with orthonormal columns after every product, so that what is small is
not lost to rounding; then the singular values of Q^T D, of few rows. Products are float32. docs/numerics.md has
what iterations and oversampling were measured to give.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "Decomposition",
    "Wanted",
    "choose_method",
    "decompose",
    "estimate_memory",
    "measure_error",
    "square",
]

Matrix: TypeAlias = npt.NDArray[Any]

#: Columns of the sketch beyond the rank that is asked for, and products with D D^T (q).
OVERSAMPLING = 16
ITERATIONS = 3
#: All singular values are found of a matrix whose smaller side is at most so many widths of a sketch, which would not
#: be faster: 384 x 384 at rank 128 took 56 ms and 72, 512 x 512 took 140 and 65.
_WORTH = 3
#: Directions of a sketch whose square is below this share of the largest are rounding, and are dropped.
_NOISE = 1e-13
#: Exponents of largest elements from which on a matrix is scaled first.
_EXTREME = 60
#: Elements that are worked on as float64 at a time.
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which of the singular values are kept: at most `rank` of them.

    Attributes:
        energy: the least number of them whose squares are this share of the matrix's; None keeps all.
        epsilon: those above it; 0 keeps all that are not 0.
    """

    rank: int
    energy: float | None = None
    epsilon: float = 0.0


@dataclass(frozen=True, slots=True)
class Decomposition:
    """The matrix U diag(s) V^T, whose columns U and rows V^T are orthonormal.

    Attributes:
        u: [m, k] float32; s: [k] float64, falling; vt: [k, n] float32.
        square: the sum of the squares of the matrix that was decomposed.
        largest: the largest singular value, kept or not.
        method: how it was found.
    """

    u: Matrix
    s: Matrix
    vt: Matrix
    square: float
    largest: float
    method: str

    @property
    def rank(self) -> int:
        """How many singular values were kept."""
        return len(self.s)

    @property
    def kept(self) -> float:
        """Their share of the sum of squares."""
        return min(1.0, float(self.s @ self.s) / self.square) if self.square else 1.0

    def turned(self) -> Decomposition:
        """That of the transpose."""
        return replace(self, u=self.vt.T, vt=self.u.T)

    def factors(self, *, distribute: bool) -> tuple[Matrix, Matrix]:
        """A [k, n] and B [m, k], float32, whose product B A it is; with `distribute` both have the roots of s."""
        left, right = (np.sqrt(self.s), np.sqrt(self.s)) if distribute else (np.ones_like(self.s), self.s)
        a = (right[:, None] * self.vt).astype(np.float32)
        b = (self.u * left).astype(np.float32)
        return a, b


def choose_method(shape: tuple[int, int], rank: int, method: str) -> str:
    """What `auto` means for a matrix: a sketch where it has far fewer columns than the matrix."""
    if method != "auto":
        return method
    return "exact" if min(shape) <= _WORTH * (rank + OVERSAMPLING) else "randomized"


def estimate_memory(shape: tuple[int, int], rank: int, method: str) -> int:
    """Bytes that reading and decomposing a matrix holds at once, the matrix among them."""
    m, n = shape
    least, width = min(m, n), min(rank + OVERSAMPLING, m, n)
    blocks = 8 * 4 * max(_BLOCK, n) + 16 * rank * (m + n)
    if method == "exact":
        return 4 * (2 * m * n + least * (m + n) + 8 * least * least) + blocks
    return 4 * m * n + 4 * width * (3 * (m + n) + 4 * max(m, n)) + blocks


def decompose(delta: Matrix, wanted: Wanted, *, method: str = "auto", seed: int = 0, name: str = "") -> Decomposition:
    """Find the largest singular values of a matrix and their vectors.

    Args:
        delta: [m, n] float32, C-contiguous, all finite.
        wanted: which are kept.
        seed, name: what the draws of a sketch depend on, besides the matrix's columns.

    Returns:
        A decomposition of at most `wanted.rank` singular values, none of which is 0.
    """
    total = square(delta)
    chosen = choose_method((delta.shape[0], delta.shape[1]), wanted.rank, method)
    if not total:
        empty = np.zeros((0,), np.float64)
        return Decomposition(delta[:, :0], empty, delta[:0], 0.0, 0.0, chosen)
    delta, exponent = _scale(delta)
    if chosen == "exact":
        u, s, vt = np.linalg.svd(delta, full_matrices=False)
    else:
        u, s, vt = _sketch(delta, _draw(delta.shape[1], wanted.rank, seed, name))
    values = np.ldexp(s.astype(np.float64), exponent)
    rank = _count(values, total, wanted)
    return Decomposition(u[:, :rank], values[:rank], vt[:rank], total, float(values[0]), chosen)


def square(matrix: Matrix) -> float:
    """The sum of the squares of a matrix's elements, in float64."""
    return math.fsum(_dot(block.astype(np.float64)) for block in _blocks(matrix))


def measure_error(delta: Matrix, a: Matrix, b: Matrix) -> float:
    """||D - B A||^2, the sum over the elements themselves, in float64.

    ||D||^2 less the squares of what was kept would be the same for factors without rounding, and no digit of it right
    where D is of low rank; and stored factors are rounded.

    Args:
        delta: [m, n]; a: [k, n]; b: [m, k]; of any float type.
    """
    wide = a.astype(np.float64)
    rows = max(1, _BLOCK // max(1, delta.shape[1]))
    parts = (slice(first, first + rows) for first in range(0, delta.shape[0], rows))
    return math.fsum(_dot(delta[part] - b[part].astype(np.float64) @ wide) for part in parts)


def _scale(delta: Matrix) -> tuple[Matrix, int]:
    """The matrix times a power of two, whose exponent is returned too, where sums of its products might overflow."""
    exponent = int(np.frexp(max(float(delta.max()), -float(delta.min())))[1])
    return (delta, 0) if abs(exponent) < _EXTREME else (np.ldexp(delta, -exponent), exponent)


def _count(values: Matrix, total: float, wanted: Wanted) -> int:
    """How many of the falling singular values are kept."""
    # What is below the rounding of the largest is none of the matrix's.
    floor = max(wanted.epsilon, float(values[0]) * 1e-7)
    rank = min(wanted.rank, int(np.count_nonzero(values > floor)))
    if wanted.energy is None:
        return rank
    # Rounding must not ask for one more where all is kept.
    reached = np.cumsum(values[:rank] ** 2) >= wanted.energy * total * (1 - 1e-6)
    return int(np.argmax(reached)) + 1 if reached.any() else rank


def _sketch(delta: Matrix, draws: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    q = _orthonormalize(delta @ draws[:, : min(delta.shape)])
    for _ in range(ITERATIONS):
        q = _orthonormalize(delta @ _orthonormalize(delta.T @ q))
    across = delta.T @ q
    right = _orthonormalize(across)
    # Few rows and columns; singular values of a Gram matrix would have lost half of their digits.
    core = across.T.astype(np.float64) @ right.astype(np.float64)
    u, s, vt = np.linalg.svd(core, full_matrices=False)
    return q @ u.astype(np.float32), s, vt.astype(np.float32) @ right.T


def _orthonormalize(columns: Matrix) -> Matrix:
    """Orthonormal columns of the same range, float32; fewer, where some depend on others.

    Through the eigenvectors of the Gram matrix in float64, twice: of [11008, 144] that takes a sixth of the time of
    LAPACK's QR decomposition.
    """
    for _ in range(2):
        wide = columns.astype(np.float64)
        squares, vectors = np.linalg.eigh(wide.T @ wide)
        held = squares > squares[-1] * _NOISE
        columns = columns @ (vectors[:, held] / np.sqrt(squares[held])).astype(np.float32)
    return columns


def _draw(rows: int, rank: int, seed: int, name: str) -> Matrix:
    """[rows, rank + oversampling] normal draws, by a counter; the key is of seed and name."""
    key = hashlib.blake2b(f"{seed}:{name}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
    return generator.standard_normal((rows, rank + OVERSAMPLING), dtype=np.float32)


def _blocks(matrix: Matrix) -> list[Matrix]:
    flat = matrix.reshape(-1)
    return [flat[first : first + _BLOCK] for first in range(0, flat.size, _BLOCK)]


def _dot(values: Matrix) -> float:
    flat = values.reshape(-1)
    return float(flat @ flat)
