"""Sizes as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pymerge.cli.quantities import format_bytes, format_count, parse_memory, parse_shard_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("5B", 5 * 10**9),
        ("1b", 10**9),
        ("500M", 5 * 10**8),
        ("20k", 20_000),
        ("123", 123),
        ("2GB", 2 * 10**9),
        ("0", 0),
    ],
)
def test_shard_sizes_are_powers_of_1000(text: str, size: int) -> None:
    assert parse_shard_size(text) == size


@pytest.mark.parametrize("text", ["", "B", "5X", "-1", "1.5B", "5GiB"])
def test_other_shard_sizes_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="such as 5B"):
        parse_shard_size(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GiB", 2 << 30),
        ("2gib", 2 << 30),
        ("500MB", 5 * 10**8),
        ("1.5 GB", 1_500_000_000),
        ("1e9", 10**9),
        ("4096", 4096),
        ("8g", 8 * 10**9),
    ],
)
def test_memory_knows_both_kinds_of_units(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "all", "0", "-1GB", "2PB"])
def test_other_amounts_of_memory_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="such as 2GiB"):
        parse_memory(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (1_234_567, "1.23 MB"), (999_600, "1 MB"), (5e12, "5 TB")],
)
def test_bytes_read_well(size: float, text: str) -> None:
    assert format_bytes(size) == text


@given(st.integers(min_value=0, max_value=10**15))
def test_bytes_are_never_in_exponent_form(size: int) -> None:
    assert "e+" not in format_bytes(size)


def test_one_is_singular() -> None:
    assert (format_count(1, "file"), format_count(1450, "tensor")) == ("1 file", "1,450 tensors")
