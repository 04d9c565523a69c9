"""How many threads numpy's linear algebra has, which numpy itself has no function for."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np

__all__ = ["one_thread_each"]

_Setter: TypeAlias = Callable[[int], object]
_Getter: TypeAlias = Callable[[], int]

#: What builds of OpenBLAS call their functions: numpy's own, and distributions'.
_PREFIXES = ("scipy_openblas", "openblas")
_SUFFIXES = ("64_", "")


@contextmanager
def one_thread_each() -> Iterator[bool]:
    """Within it, a call of numpy's linear algebra is one thread's; yields whether that could be had.

    Matrices are decomposed side by side instead: threads within small decompositions wait for each other more than they
    work (numpy 2.4, two busy processors: 64 x 64 took 100 ms with two, 2 with one), and results depend on their number.
    """
    found = _find_openblas()
    if found is None:
        yield False
        return
    get, set_threads = found
    before = get()
    set_threads(1)
    try:
        yield True
    finally:
        set_threads(before)


def _find_openblas() -> tuple[_Getter, _Setter] | None:
    """The functions of the OpenBLAS that is loaded; None where there is none, or more than numpy's."""
    np.linalg.norm(np.ones(2))  # numpy has loaded it by now
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for path in sorted(set(re.findall(r"/\S*openblas\S*", maps)), key=lambda path: "numpy" not in path):
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        for prefix in _PREFIXES:
            for suffix in _SUFFIXES:
                getter = getattr(library, f"{prefix}_get_num_threads{suffix}", None)
                setter = getattr(library, f"{prefix}_set_num_threads{suffix}", None)
                if getter is not None and setter is not None:
                    return getter, setter
    return None
