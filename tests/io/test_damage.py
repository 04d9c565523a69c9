"""Each kind of damage to a safetensors file is refused by name, place included, before data is read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError, safe_open

from pymerge import _core
from pymerge.errors import FormatError

EIGHT = bytes(8)
#: A tensor of two float32 values, as a header's entry.
PAIR: dict[str, Any] = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def header(entries: Mapping[str, Any] | str | bytes) -> bytes:
    """The bytes of a header with its length before it; a mapping is written as JSON."""
    if isinstance(entries, Mapping):
        entries = json.dumps(entries)
    text = entries.encode() if isinstance(entries, str) else entries
    return len(text).to_bytes(8, "little") + text


def write(folder: Path, entries: Mapping[str, Any] | str | bytes, data: bytes = b"") -> str:
    """Write a file of a header and `data`; returns its path."""
    path = folder / "weights.safetensors"
    path.write_bytes(header(entries) + data)
    return str(path)


def official_accepts(path: str) -> bool:
    """Whether the safetensors package opens the file."""
    try:
        with safe_open(path, "np"):
            return True
    except (SafetensorError, OSError):
        return False


def changed(**fields: Any) -> dict[str, Any]:
    """A header of one tensor, PAIR with other fields."""
    return {"a": {**PAIR, **fields}}


def typed(pairs: str) -> str:
    """A header of one tensor, its fields typed by hand."""
    return '{"a":{' + pairs + "}}"


#: name -> (header, data, what the message says). The official reader refuses these too.
DAMAGE: dict[str, tuple[Any, bytes, str]] = {
    "truncated": (changed(), bytes(7), "the file is truncated: 8 bytes of data are announced, 7 are there"),
    "bytes after the end": (changed(), bytes(9), "1 bytes after the last tensor"),
    "gap at the start": (changed(data_offsets=[4, 12]), bytes(12), r'"a": leaves a gap .*starts at 4, expected 0'),
    "gap": ({"a": PAIR, "b": {**PAIR, "data_offsets": [12, 20]}}, bytes(20), r'"b": leaves a gap .*at 12, expected 8'),
    "overlap": ({"a": PAIR, "b": {**PAIR, "data_offsets": [4, 12]}}, bytes(12), r'"b": overlaps .*at 4, expected 8'),
    "wrong size": (changed(shape=[3]), EIGHT, r'"a": data_offsets span 8 bytes, but shape and dtype need 12'),
    "ends before it begins": (changed(data_offsets=[8, 0]), EIGHT, "span -8 bytes"),
    "overflowing shape": (changed(shape=[2**62, 8]), EIGHT, '"a": its shape and dtype give no whole number of bytes'),
    "half a byte": (changed(dtype="F4", shape=[1]), EIGHT, "no whole number of bytes"),
    "unknown type": (changed(dtype="F31"), EIGHT, '"a": unknown dtype "F31"'),
    "negative size": (changed(shape=[-2]), EIGHT, "a whole number that is not negative"),
    "fraction": (typed('"dtype":"F32","shape":[2.0],"data_offsets":[0,8]'), EIGHT, "expected a whole number"),
    "exponent": (typed('"dtype":"F32","shape":[2e0],"data_offsets":[0,8]'), EIGHT, "expected a whole number"),
    "leading zero": (typed('"dtype":"F32","shape":[02],"data_offsets":[0,8]'), EIGHT, "leading zero"),
    "one offset": (changed(data_offsets=[0]), EIGHT, '"a": data_offsets must be two numbers'),
    "three offsets": (changed(data_offsets=[0, 8, 8]), EIGHT, "data_offsets must be two numbers"),
    "missing field": ({"a": {"dtype": "F32", "shape": [2]}}, EIGHT, "dtype, shape or data_offsets is missing"),
    "field twice": (typed('"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]'), EIGHT, '"dtype" .* twice'),
    "shape twice": (typed('"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]'), EIGHT, '"shape" .* twice'),
    "not JSON": ("{nonsense}", b"", r"damaged header: expected '\"' \(at byte 9\)"),
    "no object": ("[]", b"", r"expected '\{' \(at byte 8\)"),
    "ends early": ('{"a":{"dtype":"F32"', b"", "it ends too early"),
    "ends in a string": ('{"a', b"", "ends inside a string"),
    "ends in an escape": ('{"a\\', b"", "ends inside an escape"),
    "ends in a code": ('{"\\u00', b"", "ends inside an escape"),
    "two objects": ("{}{}", b"", r"text after the closing brace \(at byte 10\)"),
    "control character": ('{"a\n":1}', b"", "control character in a string"),
    "unknown escape": ('{"\\x":1}', b"", "unknown escape"),
    "bad code": ('{"\\u00zz":1}', b"", r"bad \\u escape"),
    "lone high surrogate": ('{"\\ud800":1}', b"", "lone surrogate"),
    "lone low surrogate": ('{"\\udc00":1}', b"", "lone surrogate"),
    "high surrogate twice": ('{"\\ud800\\ud800":1}', b"", "lone surrogate"),
    "not UTF-8": (b'{"a\xff":1}', b"", "not valid UTF-8"),
    "overlong UTF-8": (b'{"\xc0\xaf":1}', b"", "not valid UTF-8"),
    "UTF-8 surrogate": (b'{"\xed\xa0\x80":1}', b"", "not valid UTF-8"),
    "cut UTF-8": (b'{"\xe2\x82', b"", "not valid UTF-8"),
    "metadata of numbers": ({"__metadata__": {"epoch": 3}}, b"", r"expected '\"' \(at byte"),
    "metadata list": ({"__metadata__": []}, b"", r"expected '\{' \(at byte"),
    "bad word": (typed('"extra":nul,"dtype":"F32","shape":[2],"data_offsets":[0,8]'), EIGHT, "expected a value"),
    "bad number": (typed('"extra":1.e,"dtype":"F32","shape":[2],"data_offsets":[0,8]'), EIGHT, "expected a value"),
}

#: Likewise, but the official reader lets these pass: one tensor hides another, or memory is the limit.
STRICTER: dict[str, tuple[Any, bytes, str]] = {
    "name twice": (
        '{"a":' + json.dumps(PAIR) + ',"a":' + json.dumps(PAIR) + "}", EIGHT, '"a": the name appears twice',
    ),
    "metadata twice": ('{"__metadata__":{"k":"1","k":"2"}}', b"", '"k" is given twice in __metadata__'),
    "metadata null": ('{"__metadata__":null}', b"", "expected '{'"),
    "deep nesting": (
        typed('"extra":' + "[" * 80 + "]" * 80 + ',"dtype":"F32","shape":[2],"data_offsets":[0,8]'), EIGHT,
        "nested too deeply",
    ),
    "size past 2^63": (changed(shape=[2**63, 0], data_offsets=[0, 0]), b"", "number too large"),
    "entry as a list": ({"a": ["F32", [2], [0, 8]]}, EIGHT, "expected '{'"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_refused_with_file_and_place(tmp_path: Path, kind: str) -> None:
    entries, data, message = DAMAGE[kind]
    path = write(tmp_path, entries, data)
    with pytest.raises(FormatError, match=re.escape(path) + ": .*" + message) as caught:
        _core.read_header(path)
    assert caught.value.exit_code == 3
    assert not official_accepts(path)


@pytest.mark.parametrize("kind", STRICTER)
def test_what_the_official_reader_lets_pass_is_refused_too(tmp_path: Path, kind: str) -> None:
    entries, data, message = STRICTER[kind]
    path = write(tmp_path, entries, data)
    with pytest.raises(FormatError, match=re.escape(path) + ": .*" + message):
        _core.read_header(path)
    assert official_accepts(path)


@pytest.mark.parametrize("size", range(8))
def test_a_file_without_room_for_a_length_is_too_short(tmp_path: Path, size: int) -> None:
    path = tmp_path / "short.safetensors"
    path.write_bytes(bytes(size))
    with pytest.raises(FormatError, match=rf"too short for a safetensors file \({size} bytes\)"):
        _core.read_header(str(path))
    assert not official_accepts(str(path))


@pytest.mark.parametrize("length", [3, 100_000_001, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1])
def test_a_header_longer_than_its_file_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(FormatError, match=f"header length {length} is past the end of the file or over 100 MB"):
        _core.read_header(str(path))
    assert not official_accepts(str(path))


def test_a_header_over_the_cap_is_refused_though_the_file_is_long_enough(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with path.open("wb") as stream:
        stream.write((100_000_001).to_bytes(8, "little"))
        stream.truncate(200_000_000)
    with pytest.raises(FormatError, match="over 100 MB"):
        _core.read_header(str(path))
    assert not official_accepts(str(path))


@pytest.mark.parametrize("name", ["absent.safetensors", "."])
def test_what_is_no_file_is_no_checkpoint(tmp_path: Path, name: str) -> None:
    with pytest.raises(FormatError, match=r"cannot (open|read): "):
        _core.read_header(str(tmp_path / name))


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    whole = header({"a": PAIR, "b": {**PAIR, "data_offsets": [8, 16]}}) + bytes(16)
    path = tmp_path / "weights.safetensors"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(FormatError):
            _core.read_header(str(path))
    path.write_bytes(whole)
    assert len(_core.read_header(str(path))[0]) == 2


def test_a_mapped_window_past_the_end_is_refused(tmp_path: Path) -> None:
    file = _core.MappedFile(write(tmp_path, changed(), EIGHT))
    for offset, count in ((file.size, 1), (-1, 1), (0, file.size // 4 + 1), (0, -1), (8, 2**61)):
        with pytest.raises(FormatError, match="shorter than its header said"):
            _core.Tensor.from_file(file, offset, count, "F32")
    assert _core.Tensor.from_file(file, file.size, 0, "F32").count == 0
