"""Headers of GGUF files, honest and hostile: what lies where, or one error that says what is wrong."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pymerge.checkpoint import open_checkpoint
from pymerge.checkpoint.gguf_families import FAMILIES, find_name
from pymerge.checkpoint.gguf_header import read_gguf_header
from pymerge.checkpoint.sources import list_stored
from pymerge.config.values import ModelRef
from pymerge.errors import FormatError, PymergeError
from pymerge.execute.derived import read_source
from pymerge.kernels.dequantize import packed
from pymerge.verify.reading import read_pieces


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def entry(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    """One tensor's; shapes are the other way round."""
    dims = struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
    return text(name) + dims + struct.pack("<IQ", kind, offset)


def number(key: str, value: int) -> bytes:
    return text(key) + struct.pack("<II", 4, value)


def make(
    *tensors: bytes, pairs: tuple[bytes, ...] = (), data: int = 4096, version: int = 3, counts: Any = None
) -> bytes:
    """A file's bytes."""
    head = b"GGUF" + struct.pack("<IQQ", version, *(counts or (len(tensors), len(pairs))))
    content = head + b"".join(pairs) + b"".join(tensors)
    return content + bytes(-len(content) % 32) + bytes(data)


def read(folder: Path, content: bytes) -> Any:
    path = folder / "model.gguf"
    path.write_bytes(content)
    return read_gguf_header(path)


A, B = entry("a", (4, 8), 0, 0), entry("b", (2, 32), 8, 128)


def test_tensors_lie_where_the_fields_own_reader_finds_them(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(64)
    writer.add_token_list(["a", "b" * 70000])
    writer.add_array("some.numbers", list(range(7)))
    writer.add_chat_template("{{ long }}" * 9000)
    random = np.random.default_rng(0)
    for name, shape, kind in (("one", (3, 5), "F32"), ("two", (2, 256), "Q6_K"), ("three", (4, 2, 32), "Q8_0")):
        type_ = gguf.GGMLQuantizationType[kind]
        size = gguf.GGML_QUANT_SIZES[type_]
        codes = random.integers(0, 256, (*shape[:-1], shape[-1] // size[0] * size[1]), np.uint8)
        writer.add_tensor(name, codes.view(np.float32) if kind == "F32" else codes, raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header, reader = read_gguf_header(path), gguf.GGUFReader(path)
    found = [(t.name, t.kind, t.shape, t.offset, t.nbytes) for t in header.tensors]
    assert found == [
        (t.name, t.tensor_type.name, tuple(t.shape.tolist()[::-1]), t.data_offset, t.n_bytes) for t in reader.tensors
    ]
    assert header.metadata["some.numbers"] == list(range(7))
    assert header.metadata["tokenizer.ggml.tokens"] is None
    assert header.metadata["general.architecture"] == "llama"


def test_types_have_the_sizes_that_blocks_have() -> None:
    from pymerge.checkpoint.gguf_header import _OTHER_TYPES, _TYPES

    for value, (name, elements, size) in _TYPES.items():
        kind = gguf.GGMLQuantizationType(value)
        assert (kind.name, gguf.GGML_QUANT_SIZES[kind]) == (name, (elements, size))
        assert name in ("F32", "F16", "BF16") or packed.FORMATS[name] == (elements, size)
    for value, name in _OTHER_TYPES.items():
        assert gguf.GGMLQuantizationType(value).name == name


@pytest.mark.parametrize("architecture", FAMILIES)
def test_names_are_those_of_the_fields_tables(architecture: str) -> None:
    kind = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    table = gguf.get_tensor_name_map(kind, 2)
    family = FAMILIES[architecture]
    for part in (*(f"blk.1.{part}" for part in family.layer), "token_embd", "output", "output_norm"):
        found = find_name(family, f"{part}.weight")
        assert found is not None
        # Gemma shares its embedding, so that the tables have no head.
        if (architecture, part) != ("gemma2", "output"):
            assert table.get_name(found[0], try_suffixes=(".weight",)) == f"{part}.weight"
    assert find_name(family, "blk.01.attn_output.weight") is None
    assert find_name(family, "blk.1.attn_output.scale") is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "ends inside its header"),
        (b"GGML" + bytes(60), "is no GGUF file"),
        (make(A, version=1), "of version 1"),
        (make(A, version=3 << 24), "big-endian"),
        (make(A, counts=(1 << 40, 0)), "cannot hold"),
        (make(A, counts=(2, 0), data=0)[:70], "ends inside its header"),
        (make(A, pairs=(text("k") + struct.pack("<IQ", 8, 1 << 60),)), "ends inside its header"),
        (make(A, pairs=(text("k") + struct.pack("<IIQ", 9, 8, 1 << 60),)), "ends inside its header"),
        (make(A, pairs=(text("k") + struct.pack("<IIQ", 9, 12, 1 << 61),)), "ends inside its header"),
        (make(A, pairs=(text("k") + struct.pack("<IIQ", 9, 9, 1),)), "array of the type 9"),
        (make(A, pairs=(text("k") + struct.pack("<I", 99),)), "unknown type 99"),
        (make(A, pairs=(number("k", 1), number("k", 2))), "given twice"),
        (make(A, pairs=(number("general.alignment", 0),)), "general.alignment is 0"),
        (make(A, pairs=(number("general.alignment", 24),)), "general.alignment is 24"),
        (make(struct.pack("<Q", 1 << 62)), "has 4611686018427387904 bytes"),
        (make(entry("a", (), 0, 0)), "has 0 dims"),
        (make(entry("a", (1, 1, 1, 1, 1), 0, 0)), "has 5 dims"),
        (make(entry("a\n", (1,), 0, 0)), "has 1 dims"),
        (make(entry("a", (0, 4), 0, 0)), "has the shape"),
        (make(entry("a", (2, 33), 8, 0)), "has the shape"),
        (make(entry("a", (4,), 16, 0)), "is IQ2_XXS, which is not read"),
        (make(entry("a", (4,), 77, 0)), "the unknown type 77"),
        (make(entry("a", (4,), 0, 4)), "is not where the header says"),
        (make(entry("a", (1 << 62, 1 << 62), 0, 0)), "is not where the header says"),
        (make(entry("a", (1024,), 0, 32)), "is not where the header says"),
        (make(entry("a", (4,), 0, (1 << 64) - 32)), "is not where the header says"),
        (make(A, entry("b", (8,), 0, 96)), "overlaps"),
        (make(A, entry("a", (8,), 0, 128)), "listed twice"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_damaged_headers_are_refused(content: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=says):
        read(tmp_path, content)


def test_a_header_is_read_wherever_the_file_ends(tmp_path: Path) -> None:
    whole = make(A, B, pairs=(number("k", 1),), data=128 + 68)
    assert len(read(tmp_path, whole).tensors) == 2
    for size in range(len(whole)):
        with pytest.raises(FormatError):
            read(tmp_path, whole[:size])


def write_model(path: Path) -> bytes:
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in (("embedding_length", 32), ("block_count", 1), ("feed_forward_length", 32),
                       ("attention.head_count", 4), ("context_length", 64)):  # fmt: skip
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_tensor("token_embd.weight", np.zeros((9, 32), np.float16))
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((32, 34), np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("rope_freqs.weight", np.ones(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


@pytest.mark.filterwarnings("ignore")
def test_every_kind_of_block_is_read_in_the_rows_order(tmp_path: Path) -> None:
    path, random = tmp_path / "model.gguf", np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in (("embedding_length", 256), ("block_count", 10), ("feed_forward_length", 32),
                       ("attention.head_count", 4), ("context_length", 64)):  # fmt: skip
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_tensor("token_embd.weight", np.zeros((9, 256), np.float16))
    kinds = sorted(set(packed.FORMATS) - {"F32_LESS_ONE"})
    expected = {}
    for layer, name in enumerate(kinds):
        kind = gguf.GGMLQuantizationType[name]
        codes = random.integers(0, 256, (16, 256 // packed.FORMATS[name][0] * packed.FORMATS[name][1]), np.uint8)
        writer.add_tensor(f"blk.{layer}.attn_q.weight", codes, raw_dtype=kind)
        values = gguf.quants.dequantize(codes, kind)
        # Heads of four rows, in the file in the order 0 2 1 3.
        expected[f"model.layers.{layer}.self_attn.q_proj.weight"] = values.reshape(4, 2, 2, 256).swapaxes(1, 2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    checkpoint = open_checkpoint(ModelRef(str(path)))
    for name, values in expected.items():
        source = checkpoint.tensors[name]
        assert source.shape == (16, 256)
        assert source.origin.name == "bfloat16"
        for found in (read_source(source), np.concatenate(list(read_pieces(source, 1000)))):
            same = (found.view(np.uint32) == values.reshape(-1).view(np.uint32)) | np.isnan(found)
            assert np.array_equal(np.isnan(found), np.isnan(values.reshape(-1)))
            assert same.all(), name


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_header_says_tensors_lie_in_the_file(data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    content = bytearray(write_model(path) if not path.exists() else (tmp_path / "whole").read_bytes())
    if not (tmp_path / "whole").exists():
        (tmp_path / "whole").write_bytes(content)
    size = read_gguf_header(tmp_path / "whole").size
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, size - 1))
        patch = data.draw(st.sampled_from([b"\xff", b"\x00", b"\x08", b"\xff" * 8, b"\x00" * 8, b"\x7f" * 4]))
        content[at : at + len(patch)] = patch
    path.write_bytes(content)
    try:
        checkpoint = open_checkpoint(ModelRef(str(path)))
    except PymergeError:
        return
    for source in checkpoint.tensors.values():
        assert source.count > 0
        for stored in list_stored(source):
            assert 0 <= stored.offset <= stored.offset + stored.nbytes <= len(content)
