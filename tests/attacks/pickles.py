"""Pickled weights that strangers could send, put together opcode by opcode, in place of a good model's weights."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

from attacks.models import ESCAPES, MUST_BE_FILE, PLAIN, SHOWN, WEIGHTS, both, everywhere, link, pickled, special
from attacks.values import Attack, Layout

__all__ = ["PICKLES"]

BIN, INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
STORAGES = {"0": bytes(16)}


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def many(*parts: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(parts) + b"t"


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def storage(key: str = "0", count: int = 4, kind: str = "FloatStorage") -> bytes:
    return many(text("storage"), named("torch", kind), text(key), text("cpu"), number(count)) + b"Q"


def tensor(
    held: bytes = storage(), offset: int = 0, shape: tuple[int, ...] = (4,), strides: tuple[int, ...] = (1,)
) -> bytes:
    sizes = [many(*map(number, values)) for values in (shape, strides)]
    arguments = many(held, number(offset), *sizes, b"\x89", named("collections", "OrderedDict") + b")R")
    return named("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def state(value: bytes = tensor(), name: str = "w", before: bytes = b"", after: bytes = b"") -> bytes:
    """A pickle of a state dict of one tensor."""
    return b"\x80\x02" + before + b"}(" + text(name) + value + b"u" + after + b"."


def archive(content: bytes, storages: Mapping[str, bytes] = STORAGES, method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        made.writestr("archive/data.pkl", content)
        for key, data in storages.items():
            made.writestr(f"archive/data/{key}", data)
    return file.getvalue()


def put(content: bytes, name: str = BIN) -> Layout:
    """A pickled file of this content instead of the safetensors file."""

    def layout(folder: Path) -> None:
        (folder / WEIGHTS).unlink(missing_ok=True)
        (folder / name).write_bytes(content)

    return layout


def of(content: bytes) -> Layout:
    """The same of an archive of this pickle."""
    return put(archive(content))


def legacy(content: bytes, keys: bytes = b"](" + text("0") + b"e.", count: int = 4, data: int = 16) -> Layout:
    """The format before torch 1.6."""
    magic = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."
    system = b"\x80\x02}(" + text("little_endian") + b"\x88u."
    start = magic + b"\x80\x02M\xe9\x03." + system + content + b"\x80\x02" + keys
    return put(start + count.to_bytes(8, "little") + bytes(data))


def changed(old: bytes, new: bytes, *, last: bool = False) -> Layout:
    """A good archive in which some bytes are others."""
    content = archive(state())
    at = content.rfind(old) if last else content.find(old)
    assert at >= 0
    return put(content[:at] + new + content[at + len(old) :])


def like_the_first(begin: int, end: int) -> Layout:
    """An archive of two storages; these bytes of what its directory says of the second are the first one's."""
    content = archive(state(), {"0": bytes(16), "1": bytes(16)})
    second = content.rfind(b"PK\x01\x02")
    first = content.rfind(b"PK\x01\x02", 0, second)
    return put(content[: second + begin] + content[first + begin : first + end] + content[second + end :])


def call(module: str, name: str, argument: str = "planted") -> bytes:
    """A state dict, and before it a call of a function."""
    return state(before=named(module, name) + many(text(argument)) + b"R0")


def after(code: bytes, says: str) -> Attack:
    """A state dict of a good tensor after other opcodes."""
    return Attack(of(state(before=code)), 3, says)


def of_tensor(says: str, value: bytes) -> Attack:
    """A state dict of this."""
    return Attack(of(state(value)), 3, says)


DEEP = 2 * 10**5
NOT_SO = "describes a tensor as torch does not"
NO_OPCODE = "which torch.save does not write"

PICKLES: dict[str, Attack] = {
    "a good archive": Attack(of(state()), 0),
    "a good legacy file": Attack(legacy(state()), 0),
    # Programs.
    "a pickle alone": Attack(pickled(BIN), 3, f'"{os.mkdir.__module__}.mkdir", which is no part of weights'),
    **{
        f"{module}.{name}": Attack(layout(call(module, name)), 3, f'"{module}.{name}", which is no part of weights')
        for layout, module, name in (
            (of, "os", "system"), (legacy, "builtins", "eval"), (of, "os", "mkdir"), (legacy, "torch", "load"),
            (of, "torch._utils", "_rebuild_tensor_v2.__globals__"), (of, "pymerge", "merge"), (of, "", ""),
        )
    },
    "a program by the stack": after(text("os") + text("system") + b"\x93" + many() + b"R0", "os.sys"),
    "a class without a module": after(b"\x8c\x02os]\x93", "has a name that is none"),
    "escapes in a name of a program": Attack(of(call("os", ESCAPES.replace("\n", ""))), 3, "\\u001b[2J"),
    "a name without an end": after(b"c" + b"a" * 1000, "a name of more than 500 bytes"),
    **{
        f"opcode {code!r}": Attack(of(state(before=before)), 3, NO_OPCODE)
        for code, before in (
            ("INST", b"(ios\nsystem\n"), ("OBJ", b"(" + named("collections", "OrderedDict") + b"o"),
            ("NEWOBJ", named("collections", "OrderedDict") + b")\x81"), ("EXT1", b"\x82\x01"),
            ("PERSID", b"Pstorage\n"), ("LONG", b"L" + b"9" * 100_000 + b"L\n"), ("LONG4", b"\x8b\xff\xff\xff\x7f"),
            ("BYTEARRAY8", b"\x96" + b"\xff" * 8), ("NEXT_BUFFER", b"\x97"), ("EMPTY_SET", b"\x8f"),
        )
    },
    "a call of a storage": after(named("torch", "FloatStorage") + b")R0", "calls what is no function"),
    "a call of text": after(text("os.system") + b")R0", "calls what is no function"),
    "attributes of a tensor": of_tensor("sets attributes of what has none", tensor() + b"}b"),
    "a type of its own": of_tensor(
        NOT_SO, named("torch._tensor", "_rebuild_from_type_v2") + many(named("torch", "Tensor") * 2, b")", b"N") + b"R"
    ),
    # Memory and time.
    "a memo of 2^32": Attack(of(state(before=b"Nr\xff\xff\xff\xff0")), 0),
    "a memo of nothing": after(b"j\xff\xff\xff\xff", "refers to what it has not made"),
    "text of 2^62 bytes": after(b"\x8d" + (1 << 62).to_bytes(8, "little"), "is cut short"),
    "a frame of 2^63 bytes": after(b"\x95" + (1 << 63).to_bytes(8, "little"), "is cut short"),
    "an integer of 255 bytes": after(b"\x8a\xff" + b"\x7f" * 255, "an integer of 255 bytes"),
    "endless marks": after(b"(" * DEEP, "ends before all of it is put together"),
    "endless lists": Attack(of(state(before=b"]" * DEEP + b"a" * (DEEP - 1) + b"0")), 0, alone=True),
    "endless tuples as a key": Attack(
        of(state(before=b"}" + b")" + b"\x85" * DEEP + b"Ns0")), 3, "a key of type tuple", alone=True
    ),
    "tuples as a shape": of_tensor(NOT_SO, tensor().replace(many(number(4)), b")" + b"\x85" * 1000)),
    "a list of itself": Attack(of(state(before=b"]q\x00h\x00a0")), 0),
    "a list of itself as the state": Attack(of(b"\x80\x02]q\x00h\x00a."), 3, "holds no state dict"),
    "too little": after(b"0", "takes more than there is"),
    "too much": after(b"N", "ends before all of it is put together"),
    "text that is not UTF-8": after(b"\x8c\x01\xff0", "is not UTF-8"),
    # Tensors.
    **{
        f"shape {shape}": Attack(of(state(tensor(shape=shape, strides=strides))), 3, says)
        for shape, strides, says in (
            ((1 << 62,), (1,), "passes the end of its storage"), ((1 << 62, 1 << 62), (1 << 62, 1), NOT_SO),
            ((1 << 62, 1 << 62, 0), (0, 0, 1), NOT_SO), ((-4,), (1,), NOT_SO), ((1,) * 65, (1,) * 65, NOT_SO),
            ((4, 1 << 40), (0, 0), "not contiguous"), ((4,), (-1,), NOT_SO), ((4,), (), NOT_SO), ((5,), (1,), "passes"),
        )
    },
    "a negative offset": of_tensor(NOT_SO, tensor(offset=-1)),
    "an offset past the end": of_tensor('tensor "w" passes the end of its storage', tensor(offset=1)),
    "an offset of 2^63": of_tensor("passes the end of its storage", tensor(offset=1 << 63)),
    "a storage of 2^62 elements": of_tensor('storage "0" has 16 bytes', tensor(storage(count=1 << 62))),
    "a storage of -1 elements": of_tensor("that is no storage", tensor(storage(count=-1))),
    "a storage that is not there": of_tensor('"../../../x" is not in the archive', tensor(storage("../../../x"))),
    "a storage that is the pickle": of_tensor("is not in the archive", tensor(storage("../data.pkl"))),
    "a storage of a type of its own": of_tensor(".dequantize()", tensor(storage(kind="QInt8Storage"))),
    "a legacy storage past the end": Attack(
        legacy(state(tensor(storage(count=1 << 40))), count=1 << 40), 3, "ends before all of its tensors"
    ),
    "a legacy storage of another size": Attack(legacy(state(), count=1 << 62), 3, 'storage "0" has'),
    "a legacy storage twice": Attack(legacy(state(), b"](" + text("0") * 2 + b"e.", data=40), 3, "are not those of"),
    "a legacy file without storages": Attack(legacy(state(), b"]."), 3, "ends before all of its tensors"),
    "a legacy key that is none": Attack(legacy(state(), b"]]a."), 3, "are not those of its tensors"),
    # Names.
    "escapes in a pickled name": Attack(of(state(tensor(shape=(2,)), ESCAPES)), 3, SHOWN),
    "escapes in a pickled name that merges": Attack(everywhere(of(state(name=ESCAPES))), 0),
    "a path as a pickled name": Attack(everywhere(of(state(name="../../../planted"))), 0),
    "a name of Python 2": Attack(everywhere(of(state().replace(text("w"), b"U\x01w"))), 0),
    "a number as a name": Attack(of(state().replace(text("w"), b"K\x07")), 3, '"7" is no tensor'),
    "a name twice in a pickle": of_tensor("1 tensors besides its state dict", tensor() + text("w") + tensor()),
    # The archive.
    "a bomb": Attack(put(archive(state(), {"0": bytes(10**7)}, zipfile.ZIP_DEFLATED)), 3, "is compressed"),
    "overlapping entries": Attack(like_the_first(42, 46), 3, "of the zip archive overlap"),
    "an entry of another name": Attack(changed(b"archive/data/0", b"archive/data/1"), 3, "is not what its"),
    "an entry twice": Attack(like_the_first(46, 60), 3, 'entry "archive/data/0" is in the zip archive twice'),
    "an encrypted entry": Attack(
        changed(b"PK\x01\x02\x14\x03\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\1\0"), 3, "is encrypted"
    ),
    "an entry past the end": Attack(
        changed(struct.pack("<2I", 16, 16), struct.pack("<2I", 1 << 30, 1 << 30), last=True), 3, "passes the end of"
    ),
    "another number of entries": Attack(
        changed(b"PK\5\6\0\0\0\0\2\0\2\0", b"PK\5\6\0\0\0\0\xff\0\xff\0"), 3, "is not where its end says"
    ),
    "a damaged directory": Attack(changed(b"PK\1\2", b"PK\1\3", last=True), 3, "directory is damaged"),
    "a part of an archive": Attack(changed(b"PK\5\6\0", b"PK\5\6\1"), 3, "one of several parts"),
    "an archive without an end": Attack(put(archive(state())[:-1]), 3, "has no end"),
    "an archive of nothing": Attack(put(b"PK\x05\x06" + bytes(18)), 3, "is no file that torch.save wrote"),
    "an archive cut in half": Attack(put(archive(state())[:60]), 3, "has no end"),
    "no bytes": Attack(put(b""), 3, "is no file that torch.save wrote"),
    "a pointer instead of weights": Attack(put(b"version https://git-lfs.github.com/spec/v1\n"), 3, "git lfs pull"),
    # The folder.
    "pickled weights as a pipe": Attack(both(put(b""), special(BIN, os.mkfifo)), 3, MUST_BE_FILE, alone=True),
    "pickled weights as a device": Attack(both(put(b""), link(BIN, "/dev/zero")), 3, MUST_BE_FILE),
    "a pickled shard elsewhere": Attack(put(b'{"weight_map":{"w":"../x.bin"}}', INDEX), 3, PLAIN),
    "a pickled shard as a device": Attack(
        both(put(b'{"weight_map":{"w":"x.bin"}}', INDEX), link("x.bin", "/dev/zero")), 3, "is missing"
    ),
}  # fmt: skip
