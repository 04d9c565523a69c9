"""Model folders that strangers could send. A layout is given a good model of one tensor, `w`, to spoil."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import toys
from attacks.values import Attack, Layout

__all__ = ["MODELS", "PLANTED"]

#: The file that a planted program makes if it is ever run, beside the model's folder.
PLANTED = "planted"
WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
GOOD = {"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}


def header(entries: Any, data: int = 16, *, length: int | None = None, before: bytes = b"") -> Layout:
    """A weight file of this header (a mapping, text or bytes), with another length and `data` zeros."""
    text = json.dumps(entries) if isinstance(entries, dict) else entries
    content = before + (text if isinstance(text, bytes) else text.encode())
    size = len(content) if length is None else length
    return lambda folder: (folder / WEIGHTS).write_bytes(size.to_bytes(8, "little") + content + bytes(data))


def entry(**fields: Any) -> Layout:
    """A weight file whose one tensor is described differently."""
    return header({"w": {**GOOD["w"], **fields}})


def index(text: str | bytes) -> Layout:
    """An index beside the weight file."""
    return lambda folder: (folder / INDEX).write_bytes(text if isinstance(text, bytes) else text.encode())


def shard(name: Any) -> Layout:
    """An index that says that `w` is there."""
    return index(json.dumps({"weight_map": {"w": name}}))


def config(text: str | bytes) -> Layout:
    """Another config.json."""
    return lambda folder: (folder / CONFIG).write_bytes(text if isinstance(text, bytes) else text.encode())


def link(name: str, target: str) -> Layout:
    """A file replaced by a link."""

    def layout(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return layout


def special(name: str, make: Callable[[Path], object]) -> Layout:
    """A file replaced by something that is no regular file."""

    def layout(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return layout


def both(*layouts: Layout) -> Layout:
    """One after the other."""
    return lambda folder: [layout(folder) for layout in layouts]


def everywhere(layout: Layout) -> Layout:
    """The same of the other model, so that the two fit."""
    return lambda folder: [layout(each) for each in (folder, folder.parent / "good")]


class _Program:
    """What makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (PLANTED,))


def pickled(name: str) -> Layout:
    """Pickled weights in place of the safetensors file."""

    def layout(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / name).write_bytes(pickle.dumps(_Program()))

    return layout


def huge(folder: Path) -> None:
    """A tensor of a tebibyte, all holes; and the same beside it, so that only its size stands in the way."""
    for each in (folder, folder.parent / "good"):
        toys.write_stand_in(each, {}, {"w": ("U8", (1 << 40,))})


def cached(folder: Path) -> None:
    """The layout of a hub's local cache, which is all links."""
    cache = folder.parent / "models--owner--name"
    (cache / "snapshots").mkdir(parents=True)
    folder.rename(cache / "blobs")
    snapshot = cache / "snapshots" / "0123abcd"
    snapshot.mkdir()
    (cache / "blobs" / "beef").write_text("{}")
    for name, blob in ((WEIGHTS, WEIGHTS), (CONFIG, CONFIG), ("tokenizer.json", "beef")):
        (cache / "blobs" / blob).rename(cache / "blobs" / f"{blob}.blob")
        (snapshot / name).symlink_to(f"../../blobs/{blob}.blob")
    folder.symlink_to(snapshot)


def linked_by_hand(folder: Path) -> None:
    """Links to the files of another folder, by the same names."""
    folder.rename(folder.parent / "real")
    folder.mkdir()
    (folder.parent / "real" / "tokenizer.json").write_text("{}")
    for name in (WEIGHTS, CONFIG, "tokenizer.json"):
        (folder / name).symlink_to(f"../real/{name}")


ESCAPES = "\x1b[2J\x1b]0;pwned\x07\x9b31m\nerror: none\r\u202e"
SHOWN = "\\u001b[2J\\u001b]0;pwned\\u0007\\u009b31m\\u000aerror: none\\u000d\\u202e"
PLAIN = "is not a plain file name in the same folder"
MUST_BE_FILE = "is no regular file"

MODELS: dict[str, Attack] = {
    # The length before a header.
    "empty file": Attack(lambda folder: (folder / WEIGHTS).write_bytes(b""), 3, "too short for a safetensors file"),
    "seven bytes": Attack(lambda folder: (folder / WEIGHTS).write_bytes(bytes(7)), 3, "too short"),
    **{
        f"header of {length}": Attack(header(GOOD, length=length), 3, f"header length {length} is past the end")
        for length in (2**64 - 1, 2**64 - 8, 2**63, 2**63 - 1, 100_000_001)
    },
    # What a header says.
    "overlap": Attack(header({**GOOD, "x": {**GOOD["w"], "data_offsets": [8, 24]}}, 24), 3, '"x": overlaps'),
    "gap": Attack(header({**GOOD, "x": {**GOOD["w"], "data_offsets": [20, 36]}}, 36), 3, '"x": leaves a gap'),
    "reversed": Attack(entry(data_offsets=[16, 0]), 3, "data_offsets span -16 bytes"),
    "negative offset": Attack(entry(data_offsets=[-16, 0]), 3, "a whole number that is not negative"),
    "offset past 2^63": Attack(entry(data_offsets=[0, 2**63]), 3, "number too large"),
    "size of 2^64": Attack(entry(shape=[2**32, 2**32]), 3, "no whole number of bytes that a file can have"),
    "size of 2^64 and nothing": Attack(entry(shape=[2**62, 2**62, 0], data_offsets=[0, 0]), 3, "no whole number"),
    "name twice": Attack(header('{"w":1,"w":2}'.replace("1", json.dumps(GOOD["w"]))), 3, "appears twice"),
    "deep header": Attack(header('{"w":{"x":' + "[" * 10**6), 3, "nested too deeply"),
    "not UTF-8": Attack(header(b'{"\xff":1}'), 3, "not valid UTF-8"),
    "half a character": Attack(header('{"\\ud800":1}'), 3, "lone surrogate"),
    "byte order mark": Attack(header(GOOD, before=b"\xef\xbb\xbf"), 3, "expected '{'"),
    "zeros": Attack(header(bytes(10**6)), 3, "expected '{'"),
    "another shape": Attack(entry(shape=[2, 2]), 3, "w"),
    # Names of tensors.
    "escapes in a name": Attack(header({ESCAPES: {**GOOD["w"], "shape": [5]}}), 3, f'"{SHOWN}"'),
    "escapes in a name that others lack": Attack(header({ESCAPES: GOOD["w"]}), 3, SHOWN),
    "escapes in a name that merges": Attack(everywhere(header({ESCAPES: GOOD["w"]})), 0),
    "a path as a name": Attack(everywhere(header({"../../../planted": GOOD["w"]})), 0),
    "a path as a name from the root": Attack(everywhere(header({"/tmp/planted\0": GOOD["w"]})), 0),
    "no name": Attack(everywhere(header({"": GOOD["w"]})), 0),
    # Where an index leads.
    **{
        f"shard {name!r}": Attack(shard(name), 3, PLAIN)
        for name in ("../good/model.safetensors", "/etc/passwd", "a/b", "a\\b", "c:x", "..", ".", "", "a\0b", "a\x1bb",
                     "\ud800", 7, None, [], {}, ["model.safetensors"])
    },
    "shard that cannot be": Attack(shard("x" * 1000), 3, "is missing"),
    "shard that is the index": Attack(shard(INDEX), 3, "is it a safetensors file?"),
    "shard that is a pipe": Attack(both(shard("pipe"), special("pipe", os.mkfifo)), 3, MUST_BE_FILE, alone=True),
    "shard that is a folder": Attack(both(shard("sub"), special("sub", Path.mkdir)), 3, MUST_BE_FILE),
    "shard that is a device": Attack(both(shard("zero"), link("zero", "/dev/zero")), 3, "is missing", alone=True),
    "shard that is no model": Attack(both(shard("text"), link("text", "/etc/passwd")), 3, "is it a safetensors file?"),
    "shards in a circle": Attack(both(shard("a"), link("a", "b"), link("b", "a")), 3, "is missing"),
    "index of everything twice": Attack(index('{"weight_map":{"w":"a","w":"b"}}'), 3, '"w" is given twice'),
    "index of a ghost": Attack(index('{"weight_map":{"' + "g" * 10**6 + f'":"{WEIGHTS}"}}}}'), 3, "is not in"),
    "deep index": Attack(index('{"weight_map":' + "[" * 10**6), 3, "nested too deeply"),
    "index in UTF-16": Attack(index('{"weight_map":{}}'.encode("utf-16")), 3, "not text in UTF-8"),
    "index as a pipe": Attack(special(INDEX, os.mkfifo), 0, alone=True),
    # What is no file at all.
    "weights as a pipe": Attack(special(WEIGHTS, os.mkfifo), 3, MUST_BE_FILE, alone=True),
    "weights as a device": Attack(link(WEIGHTS, "/dev/zero"), 3, MUST_BE_FILE, alone=True),
    "weights as a folder": Attack(special(WEIGHTS, Path.mkdir), 3, MUST_BE_FILE),
    "weights that lead nowhere": Attack(link(WEIGHTS, "nowhere"), 3, MUST_BE_FILE),
    "weights in a circle": Attack(link(WEIGHTS, WEIGHTS), 3, MUST_BE_FILE),
    "a tebibyte of holes": Attack(huge, 5, "make room for", alone=True),
    # config.json.
    "config as a pipe": Attack(special(CONFIG, os.mkfifo), 3, MUST_BE_FILE, alone=True),
    "config as a device": Attack(link(CONFIG, "/dev/zero"), 3, "is a link to /dev/zero"),
    "config as a folder": Attack(special(CONFIG, Path.mkdir), 3, "cannot be read"),
    "config that leads out": Attack(link(CONFIG, "/etc/passwd"), 3, "is a link to /etc/passwd"),
    "config of 200 MB": Attack(lambda folder: os.truncate(folder / CONFIG, 200 << 20), 3, "larger than", alone=True),
    "config of a list": Attack(config("[]"), 3, "expected a JSON object"),
    "config of nothing": Attack(config(""), 3, "not valid JSON"),
    "config not UTF-8": Attack(config(b'{"a":"\xff"}'), 3, "not text in UTF-8 (byte 6)"),
    "config of a million levels": Attack(config('{"a":' * 10**6), 3, "nested too deeply", alone=True),
    "config of a hundred levels": Attack(config('{"a":' * 100 + "1" + "}" * 100), 3, "nested too deeply"),
    "config with a long number": Attack(config('{"a":' + "9" * 5000 + "}"), 3, "not valid JSON"),
    "config with a mark": Attack(config(b"\xef\xbb\xbf{}"), 0),
    "config with half a character": Attack(config('{"a":"\\ud800"}'), 0),
    **{
        f"{value} layers": Attack(config(f'{{"num_hidden_layers":{value}}}'), 0)
        for value in ("1000000000000000000", "1e18", "-1", '"many"', "{}", "[[1]]", "NaN", "true")
    },
    # The small files that are copied.
    "tokenizer that leads out": Attack(link("tokenizer.json", "/etc/passwd"), 3, "tokenizer.json: is a link to"),
    "templates that lead out": Attack(link("additional_chat_templates", "../elsewhere"), 3, "is a link to"),
    "tokenizer as a pipe": Attack(special("tokenizer.json", os.mkfifo), 0, alone=True),
    "a hub's cache": Attack(cached, 0),
    "links to another folder": Attack(linked_by_hand, 0),
    # Programs.
    "pickled weights by another name": Attack(pickled(WEIGHTS), 3, "is it a safetensors file?"),
    "code of its own": Attack(
        both(
            config('{"auto_map":{"AutoModel":"modeling_x.X"},"trust_remote_code":true}'),
            lambda folder: (folder / "modeling_x.py").write_text(f"import os; os.mkdir('{PLANTED}')"),
        ),
        0,
    ),
}  # fmt: skip
