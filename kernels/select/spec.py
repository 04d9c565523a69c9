"""select: where the k largest magnitudes of a task vector end.

    keys[e] = bit pattern of |V[e]|
    V = D_i = X_i - B, or X_i where there is no base;
per line (`run_lines`) of |V[e] k|, k the factor of the element's vector;
of spread (`run_spread`) V is how far all the tensors are apart (common/spread.py), one for all.

In: n tensors [N] of any mergeable dtype, optionally a base, a count k_i (0 <= k_i <= N) each. Of
spread: no base, a share; k = int(share c), where c counts the elements whose V is not 0.
Out per count: (bits, last): an element belongs to the k largest if keys[e] > bits, or
keys[e] == bits and e <= last. Ties go to the lowest flat index, so exactly k elements belong.
NaN is the largest magnitude. k = 0: bits is above every key, last = -1.
Passes over the inputs: 1 for all tensors together (a bracket that missed its rank costs 2 more).
The answer is unique, so every algorithm that is right agrees bit for bit.

`run_counts`: how many keys of each tensor have low_i + b 2^shift <= key < low_i + (b + 1) 2^shift, for
b < `buckets`. Out: [n, buckets] integers. Passes: 1.
`run_counts_open`: one more bucket holds all keys beyond. Out: [n, buckets + 1] integers. Passes: 1.

`run_sample`: the keys of runs of 64 elements, one in each `apart` > 64 elements, of which number r begins
at place 40503 r mod (apart - 64) in them; of fewer elements the first 64. Out: [n, keys] integers. Reads
nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..common.convert import Array, decode_delta, magnitude_keys
from ..common.lines import spread_lines
from ..common.spread import spread

PASSES = 1

EMPTY = ((1 << 63) - 1, -1)


def _cut(keys: Array, count: int) -> tuple[int, int]:
    if count == 0:
        return EMPTY
    limit = np.partition(keys, keys.size - count)[keys.size - count]
    at_limit = np.flatnonzero(keys == limit)
    return int(limit), int(at_limit[count - np.count_nonzero(keys > limit) - 1])


def run(
    tensors: Sequence[Array], base: Array | None, counts: Sequence[int], compute: str
) -> tuple[tuple[int, int], ...]:
    """The contract, bit for bit: the k-th largest key, and which of those that equal it is the last."""
    return tuple(
        _cut(magnitude_keys(decode_delta(tensor, base, compute)), count)
        for tensor, count in zip(tensors, counts, strict=True)
    )


def run_spread(tensors: Sequence[Array], base: None, share: float, compute: str) -> tuple[tuple[int, int], ...]:
    """The contract of spread; one cut."""
    keys = magnitude_keys(spread(tensors, compute))
    return (_cut(keys, int(share * np.count_nonzero(keys))),)


def run_lines(
    tensors: Sequence[Array],
    base: Array | None,
    counts: Sequence[int],
    factors: Sequence[float],
    lines: tuple[int, int, bool],
    compute: str,
) -> tuple[tuple[int, int], ...]:
    """The contract with a factor for each vector, rounded once to the compute type."""
    scales = spread_lines(factors, lines, compute)
    cuts = []
    for tensor, count in zip(tensors, counts, strict=True):
        with np.errstate(over="ignore", invalid="ignore"):
            scores = decode_delta(tensor, base, compute) * scales
        cuts.append(_cut(magnitude_keys(scores), count))
    return tuple(cuts)


def run_counts(
    tensors: Sequence[Array], base: Array | None, lows: Sequence[int], shift: int, buckets: int, compute: str
) -> Array:
    """The contract of counts, bit for bit."""
    counts = np.zeros((len(tensors), buckets), np.uint64)
    for row, tensor, low in zip(counts, tensors, lows, strict=True):
        keys = magnitude_keys(decode_delta(tensor, base, compute)).astype(np.uint64)
        places = (keys[keys >= low] - np.uint64(low)) >> np.uint64(shift)
        row += np.bincount(places[places < buckets].astype(np.int64), minlength=buckets).astype(np.uint64)
    return counts


def run_counts_open(
    tensors: Sequence[Array], base: Array | None, lows: Sequence[int], shift: int, buckets: int, compute: str
) -> Array:
    """The contract of counts with an open last bucket, bit for bit."""
    counts = run_counts(tensors, base, lows, shift, buckets, compute)
    beyond = np.zeros((len(tensors), 1), np.uint64)
    for row, tensor, low in zip(beyond, tensors, lows, strict=True):
        keys = magnitude_keys(decode_delta(tensor, base, compute)).astype(np.uint64)
        row[0] = np.count_nonzero(keys >= low + (buckets << shift))
    return np.concatenate([counts, beyond], axis=1)


def sample_places(size: int, apart: int) -> Array:
    """The flat indices of the elements of a sample of `size` elements, int64."""
    runs = max(1, size // apart) if size else 0
    starts = (run * apart + run * 40503 % (apart - 64) for run in range(runs))
    return np.array([place for start in starts for place in range(start, min(start + 64, size))], np.int64)


def run_sample(tensors: Sequence[Array], base: Array | None, apart: int, compute: str) -> Array:
    """The contract of samples, bit for bit."""
    places = sample_places(tensors[0].size, apart)
    keys = [magnitude_keys(decode_delta(tensor, base, compute))[places] for tensor in tensors]
    return np.asarray(keys, np.uint64).reshape(len(tensors), len(places))
