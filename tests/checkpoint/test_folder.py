"""Opening model folders: what is accepted, and what is refused with which advice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys

from pymerge.checkpoint import open_checkpoint
from pymerge.config import ModelRef
from pymerge.errors import DTypeError, FormatError, Location, RecipeError

STAND_IN = {f"model.layers.{index}.w": ("BF16", (4, 2)) for index in range(4)}


def sharded(folder: Path, shards: int = 2) -> Path:
    return toys.write_stand_in(folder, toys.llama_config(), STAND_IN, shards=shards)


def edit_index(folder: Path, **changes: Any) -> Path:
    """Change entries of the weight map; None removes one."""
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    for name, file in changes.items():
        if file is None:
            del index["weight_map"][name]
        else:
            index["weight_map"][name] = file
    path.write_text(json.dumps(index))
    return path


def test_single_file(tmp_path: Path) -> None:
    folder = toys.write_checkpoint(tmp_path / "m", {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}, {"k": 1})
    checkpoint = open_checkpoint(ModelRef(str(folder)))
    stored = checkpoint.tensors["a.weight"]
    assert (stored.dtype.name, stored.shape, stored.nbytes) == ("float32", (2, 3), 24)
    data = Path(stored.path).read_bytes()[stored.offset : stored.offset + stored.nbytes]
    assert np.frombuffer(data, np.float32).tolist() == [0, 1, 2, 3, 4, 5]
    assert checkpoint.config == {"k": 1}
    file = folder / "model.safetensors"
    assert checkpoint.files == ((file, file.stat().st_size, file.stat().st_mtime_ns),)


def test_shards_are_listed_in_index_order(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(ModelRef(str(sharded(tmp_path / "m", 3))))
    assert list(checkpoint.tensors) == list(STAND_IN)
    assert [path.name for path, _, _ in checkpoint.files] == [f"model-{i:05d}-of-00003.safetensors" for i in (1, 2, 3)]


def test_index_comes_before_a_single_file(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(b"not looked at")
    assert len(open_checkpoint(ModelRef(str(folder))).tensors) == 4


def test_relative_path_that_looks_like_a_hub_id(here: Path) -> None:
    sharded(here / "org" / "name")
    assert open_checkpoint(ModelRef("org/name")).folder == here / "org" / "name"


def test_tensor_in_two_shards_is_taken_from_where_the_index_says(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "m")
    second = folder / "model-00002-of-00002.safetensors"
    header, size = toys.header_bytes({name: STAND_IN[name] for name in list(STAND_IN)[1:]})
    second.write_bytes(header + bytes(size))
    stored = open_checkpoint(ModelRef(str(folder))).tensors["model.layers.1.w"]
    assert Path(stored.path).name == "model-00001-of-00002.safetensors"


def refuse_path(path: str, revision: str | None = None) -> str:
    where = Location("r.yml", 7, 3)
    with pytest.raises(RecipeError) as caught:
        open_checkpoint(ModelRef(path, revision, where=where))
    (problem,) = caught.value.problems
    assert problem.where == where
    return str(problem)


def test_hub_id_is_refused_with_the_way_to_download(here: Path) -> None:
    message = refuse_path("org/name", "v1")
    assert message.startswith('r.yml:7:3: model "org/name" is not a folder here')
    assert "hf download org/name --revision v1 --local-dir org/name" in message


def test_missing_folder_is_named(here: Path) -> None:
    assert f"there is no such folder (looked for {here}/a/b/c)" in refuse_path("a/b/c")


@pytest.mark.parametrize("path", ["x" * 5000, "~nobody-of-this-name/x/y", "a\0b/c/d"])
def test_path_that_cannot_exist(here: Path, path: str) -> None:
    assert "there is no such folder" in refuse_path(path)


def test_file_in_place_of_a_folder(here: Path) -> None:
    (here / "x.safetensors").touch()
    assert "is a file (name the folder" in refuse_path("x.safetensors")


@pytest.mark.parametrize(
    ("file", "advice"),
    [
        ("training_args.bin", "expected pytorch_model.bin"),
        ("consolidated.00.pth", "in a layout of their own"),
        ("model.gguf", "name one, as model"),
        ("adapter_config.json", "LoRA adapter"),
        ("consolidated.safetensors", "expected model.safetensors"),
        ("README.md", "is the download complete?"),
    ],
)
def test_folder_without_weights(tmp_path: Path, file: str, advice: str) -> None:
    (tmp_path / file).touch()
    with pytest.raises(FormatError) as caught:
        open_checkpoint(ModelRef(str(tmp_path)))
    assert str(tmp_path) in str(caught.value)
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "a\\b.safetensors", "c:x", "a\0b", 7]
)
def test_index_cannot_lead_out_of_the_folder(tmp_path: Path, name: object) -> None:
    edit_index(sharded(tmp_path / "m"), **{"model.layers.0.w": name})
    with pytest.raises(FormatError, match=r'"model\.layers\.0\.w": .* is not a plain file name'):
        open_checkpoint(ModelRef(str(tmp_path / "m")))


def test_missing_shard(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "m")
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        FormatError, match=r"the shard model-00002-of-00002\.safetensors is missing; finish the download"
    ):
        open_checkpoint(ModelRef(str(folder)))


def test_tensor_in_the_index_but_not_in_its_shard(tmp_path: Path) -> None:
    edit_index(sharded(tmp_path / "m"), ghost="model-00001-of-00002.safetensors")
    with pytest.raises(FormatError, match=r'tensor "ghost" is not in model-00001-of-00002\.safetensors'):
        open_checkpoint(ModelRef(str(tmp_path / "m")))


def test_tensor_in_a_shard_but_not_in_the_index(tmp_path: Path) -> None:
    edit_index(sharded(tmp_path / "m"), **{"model.layers.1.w": None})
    with pytest.raises(FormatError, match=r'1 tensors of model-00001.* are not in the index \("model\.layers\.1\.w"\)'):
        open_checkpoint(ModelRef(str(tmp_path / "m")))


@pytest.mark.parametrize(
    ("text", "message"),
    [("{}", "has no weight_map"), ('{"weight_map": []}', "has no weight_map"), ("[]", "expected a JSON object"),
     ('{\n "weight_map": nope}', r"index\.json:2:16: not valid JSON")],
)  # fmt: skip
def test_damaged_index(tmp_path: Path, text: str, message: str) -> None:
    (sharded(tmp_path / "m") / "model.safetensors.index.json").write_text(text)
    with pytest.raises(FormatError, match=message):
        open_checkpoint(ModelRef(str(tmp_path / "m")))


def test_missing_config(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "m")
    (folder / "config.json").unlink()
    with pytest.raises(FormatError, match=r"config\.json: cannot be read: No such file"):
        open_checkpoint(ModelRef(str(folder)))


def test_config_that_is_not_text(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "m")
    (folder / "config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(FormatError, match=r"not text in UTF-8 \(byte 0\)"):
        open_checkpoint(ModelRef(str(folder)))


def test_damaged_weight_file(tmp_path: Path) -> None:
    folder = toys.write_checkpoint(tmp_path / "m", {"a": np.zeros(8, np.float32)}, {})
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(FormatError, match=r"model\.safetensors"):
        open_checkpoint(ModelRef(str(folder)))


@pytest.mark.parametrize(
    ("config", "tensors", "scheme"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, {"a.weight": ("BF16", (2,))}, "gptq"),
        ({"quantization_config": {}}, {"a.weight": ("BF16", (2,))}, "of unknown kind"),
        ({}, {"a.qweight": ("I32", (2,)), "a.scales": ("F16", (2,))}, "GPTQ or AWQ"),
        ({}, {"a.weight": ("U8", (2, 1)), "a.weight.absmax": ("F32", (2,))}, "bitsandbytes 4-bit"),
        ({}, {"a.weight": ("I8", (2, 2)), "a.SCB": ("F32", (2,))}, "bitsandbytes 8-bit"),
        ({}, {"a.weight": ("F8_E4M3", (2, 2)), "a.weight_scale_inv": ("F32", (1,))}, "fp8 in blocks"),
    ],
)
def test_quantized_checkpoint_is_refused(tmp_path: Path, config: Any, tensors: Any, scheme: str) -> None:
    toys.write_stand_in(tmp_path / "m", config, tensors)
    with pytest.raises(DTypeError, match=rf"is quantized \({scheme}\)"):
        open_checkpoint(ModelRef(str(tmp_path / "m")))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n", r"is a pointer .*git lfs pull"),
        (b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>", "is a web page, not weights"),
        (b'\n{"error": "Repository not found"}', "is JSON, not weights"),
        (b"Entry not found", "is it a safetensors file"),
        (b"{" + bytes(20), "is it a safetensors file|not valid|header"),
    ],
)
def test_what_was_downloaded_instead_of_weights_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(FormatError, match=rf"model\.safetensors: .*({said})") as caught:
        open_checkpoint(ModelRef(str(tmp_path)))
    assert ("JSON" in str(caught.value)) == ("JSON" in said)
