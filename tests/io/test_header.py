"""The header reader against the safetensors package: what it writes is read alike, what it refuses is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pymerge import _core
from pymerge.errors import FormatError

CODES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
    "C64": np.complex64,
}
# Any text but lone surrogates, which UTF-8 cannot hold; the quote and the backslash come often enough.
names = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\/\n\u2028\U0001f600'), max_size=12)
shapes = st.lists(st.integers(0, 5), max_size=4)
tensors = st.dictionaries(
    names.filter(lambda name: name != "__metadata__"), st.tuples(st.sampled_from(list(CODES)), shapes)
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path that examples write over."""
    return tmp_path_factory.mktemp("headers") / "weights.safetensors"


def read_official(path: Path) -> tuple[dict[str, tuple[str, tuple[int, ...]]], dict[str, str]] | None:
    """(name -> (code, shape), metadata) as the safetensors package reads it, or None if it refuses."""
    try:
        with safe_open(path, "np") as handle:
            slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118 - not a mapping
            metadata = dict(handle.metadata() or {})
            return {name: (each.get_dtype(), tuple(each.get_shape())) for name, each in slices.items()}, metadata
    except SafetensorError:
        return None


def read_ours(path: Path) -> tuple[dict[str, tuple[str, tuple[int, ...]]], dict[str, str]] | None:
    """The same of the compiled reader."""
    try:
        entries, metadata = _core.read_header(str(path))
    except FormatError:
        return None
    return {name: (code, shape) for name, code, shape, _, _ in entries}, metadata


@settings(max_examples=80, deadline=None)
@given(spec=tensors, metadata=st.none() | st.dictionaries(names, names))
def test_what_the_official_writer_writes_is_read_alike(file: Path, spec: Any, metadata: dict[str, str] | None) -> None:
    random = np.random.default_rng(0)
    arrays = {
        name: np.frombuffer(random.bytes(int(np.prod(shape)) * np.dtype(CODES[code]).itemsize), CODES[code]).reshape(
            shape
        )
        for name, (code, shape) in spec.items()
    }
    # Of empty metadata the package (0.8.0) makes a header that it cannot read itself.
    file.write_bytes(save(arrays, metadata or None))
    entries, found = _core.read_header(str(file))
    assert {name: (code, list(shape)) for name, code, shape, _, _ in entries} == {n: tuple(s) for n, s in spec.items()}
    assert found == (metadata or {})
    content = file.read_bytes()
    for name, _, _, begin, end in entries:
        assert content[begin:end] == arrays[name].tobytes()


BASE = json.dumps({
    "__metadata__": {"format": "pt", "k\u00e9y": "v"},
    "a.weight": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]},
    "b": {"dtype": "BF16", "shape": [], "data_offsets": [8, 10]},
    "\U0001f600": {"dtype": "I8", "shape": [0], "data_offsets": [10, 10], "more": [1.5e3, True, None]},
}).encode()  # fmt: skip
pieces = st.sampled_from([b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"0", b"9", b"-", b".", b"e", b" ", b"\xff",
                          b"\\u00e9", b"\\ud83d", b"null", b'"shape"', b'"dtype"', b'"F16"'])  # fmt: skip
edits = st.lists(st.tuples(st.integers(0, len(BASE)), st.integers(0, 3), pieces | st.just(b"")), min_size=1, max_size=3)


@settings(max_examples=400, deadline=None)
@given(edits=edits)
def test_no_edit_of_a_header_is_read_that_the_official_reader_refuses(file: Path, edits: Any) -> None:
    text = BASE
    for at, removed, piece in edits:
        text = text[:at] + piece + text[at + removed :]
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(10))
    ours = read_ours(file)
    if ours is not None:
        assert ours == read_official(file)


@given(content=st.binary(max_size=64))
def test_no_bytes_make_the_reader_fail_in_another_way(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert read_ours(file) in (None, ({}, {}))


def test_entries_come_in_the_order_of_their_offsets(file: Path) -> None:
    text = json.dumps({
        "late": {"dtype": "U8", "shape": [1], "data_offsets": [4, 5]},
        "empty": {"dtype": "U8", "shape": [0], "data_offsets": [4, 4]},
        "early": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
    }).encode()  # fmt: skip
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(5))
    entries, _ = _core.read_header(str(file))
    start = 8 + len(text)
    assert [(name, begin - start, end - start) for name, _, _, begin, end in entries] == [
        ("early", 0, 4),
        ("empty", 4, 4),
        ("late", 4, 5),
    ]


@pytest.mark.parametrize("padding", [b"", b" ", b" \n\t\r" * 9])
def test_white_space_around_a_header_is_allowed(file: Path, padding: bytes) -> None:
    text = padding + BASE + padding
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(10))
    assert read_ours(file) == read_official(file) is not None


def test_the_type_tables_of_core_and_package_agree() -> None:
    from pymerge.dtypes import BY_CODE

    assert dict(_core.dtypes()) == {code: dtype.bits for code, dtype in BY_CODE.items()}


@pytest.mark.parametrize("name", ["a\u0000b", "tensor\nname", "\u202e"])
def test_odd_names_survive(file: Path, name: str) -> None:
    file.write_bytes(save({name: np.zeros(3, np.float32)}))
    assert list((read_ours(file) or ({}, {}))[0]) == [name]
