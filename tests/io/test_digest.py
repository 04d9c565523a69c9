"""Digests of ranges of a file: those of the definition, whatever is read in which pieces by whom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from digests import digest
from execute.merges import forced, levels
from hypothesis import given, settings
from hypothesis import strategies as st

from pymerge import _core
from pymerge.errors import FormatError

SIZES = [0, 1, 7, 8, 4095, 4096, 4097, 8192, 12_289, 70_001]


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("size", SIZES)
def test_the_compiled_digest_is_the_one_defined(tmp_path: Path, size: int, level: str) -> None:
    data = np.random.default_rng(size).bytes(size)
    path = tmp_path / "data"
    path.write_bytes(b"###" + data)
    with forced(level):
        assert _core.digest_ranges(str(path), [(3, size)], 2) == [digest(data)]


def test_threads_and_places_do_not_matter(tmp_path: Path) -> None:
    data = np.random.default_rng(1).bytes(9 << 20)
    path = tmp_path / "data"
    path.write_bytes(data + b"odd" + data)
    ranges = [(0, len(data)), (len(data) + 3, len(data)), (5, 100)]
    one = _core.digest_ranges(str(path), ranges, 1)
    assert one == _core.digest_ranges(str(path), ranges, 3)
    assert one[0] == one[1]
    assert one[2] == digest(data[5:105])


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=9000), st.data())
def test_any_change_changes_both_halves(data: bytes, drawn: st.DataObject) -> None:
    at = drawn.draw(st.integers(0, len(data) - 1))
    changed = bytearray(data)
    changed[at] ^= drawn.draw(st.integers(1, 255))
    for other in (bytes(changed), data + b"\0", data[:-1], bytes(4096) + data):
        before, after = digest(data), digest(other)
        assert before[:16] != after[:16]
        assert before[16:] != after[16:]


def test_chunks_that_changed_places_are_seen() -> None:
    first, second = np.random.default_rng(2).bytes(4096), np.random.default_rng(3).bytes(4096)
    assert digest(first + second) != digest(second + first)


def test_a_file_that_is_too_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(100))
    with pytest.raises(FormatError, match="shorter"):
        _core.digest_ranges(str(path), [(50, 51)], 2)
