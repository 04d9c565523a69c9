"""Decompositions of tests run as those of extractions do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pymerge.extract.blas import one_thread_each


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """With threads, small ones take a hundred times as long on a busy machine."""
    with one_thread_each():
        yield
