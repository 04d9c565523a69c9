"""How near sketches of a matrix come to the best product of their rank, and at what cost: a table of docs/numerics.md.

Matrices have singular values that fall as powers of their place and vectors that need not be random: the draws of a
sketch are, and their distribution has no direction. All of one decomposition is one thread's, as in an extraction.

    python -m tools.low_rank_errors            # a few minutes
    python -m tools.low_rank_errors --exact    # times all singular values too: some minutes more
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from pymerge.extract import decompose as tested
from pymerge.extract.blas import one_thread_each

SHAPES = ((2048, 2048), (4096, 11008))
POWERS = (0.25, 0.5, 1.0)
RANKS = (16, 64, 128)
ITERATIONS = (0, 1, 2, 3, 4)


def make_matrix(shape: tuple[int, int], values: Any, seed: int = 0) -> Any:
    """[m, n] float32 with these singular values, by two fast transforms with random signs; m <= n."""
    rows, columns = shape
    random = np.random.default_rng(seed)
    left = _transform(np.diag(values).astype(np.float32)) * random.choice([-1.0, 1.0], rows)[:, None]
    made = np.empty(shape, np.float32)
    # A row of D is a transform of a row of U diag(s), with zeros up to n.
    for first in range(0, rows, 256):
        part = np.zeros((columns, min(256, rows - first)), np.float32)
        part[:rows] = left[first : first + 256].T
        made[first : first + 256] = _transform(part).T
    made *= random.choice([-1.0, 1.0], columns).astype(np.float32)
    return made


def _transform(values: Any) -> Any:
    """The discrete Hartley transform of columns: orthonormal."""
    found = np.fft.fft(values, axis=0, norm="ortho")
    return (found.real - found.imag).astype(np.float32)


def measure(delta: Any, values: Any, rank: int, iterations: int) -> tuple[float, float]:
    """How much larger than the least error a sketch's is, as a share of it, and seconds."""
    tested.ITERATIONS = iterations
    began = time.process_time()
    found = tested.decompose(delta, tested.Wanted(rank), method="randomized")
    seconds = time.process_time() - began
    missed = tested.measure_error(delta, *found.factors(distribute=True))
    return float(np.sqrt(missed / np.sum(values[rank:] ** 2))) - 1, seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exact", action="store_true", help="time all singular values too")
    exact = parser.parse_args().exact
    print("| matrix | values | rank | " + " | ".join(f"q = {count}" for count in ITERATIONS) + " |")
    print("|---|---|---|" + "---|" * len(ITERATIONS))
    for shape in SHAPES:
        for power in POWERS:
            values = (1.0 + np.arange(min(shape))) ** -power
            delta = make_matrix(shape, values)
            for rank in RANKS:
                cells = [measure(delta, values, rank, count) for count in ITERATIONS]
                shown = " | ".join(f"{excess:.2%}, {seconds:.2f} s" for excess, seconds in cells)
                print(f"| {shape[0]} x {shape[1]} | i^-{power:g} | {rank} | {shown} |", flush=True)
        if exact:
            began = time.process_time()
            tested.decompose(delta, tested.Wanted(1), method="exact")
            print(f"\nall singular values of {shape}: {time.process_time() - began:.1f} s\n", flush=True)


if __name__ == "__main__":
    with one_thread_each():
        main()
