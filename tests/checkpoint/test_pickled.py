"""What torch.save writes is read as torch.load does; what else a pickle holds is refused by name, and not run."""

from __future__ import annotations

import json
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pymerge
from pymerge.checkpoint import open_checkpoint, unpickling
from pymerge.checkpoint.pickled import list_looked_at, read_pickled
from pymerge.checkpoint.unpickling import unpickle
from pymerge.config import ModelRef
from pymerge.dtypes import BY_NAME
from pymerge.errors import DTypeError, FormatError, PymergeError
from pymerge.output.fingerprint import digest_header
from pymerge.output.inventory import take_inventory

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
#: Types that both torch and safetensors have.
DTYPES = [
    name for name, dtype in BY_NAME.items()
    if not dtype.bits % 8 and name != "float8_e8m0fnu" and hasattr(torch, name)
]  # fmt: skip
MANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def save(value: Any, path: Path, zipped: bool = True, **options: Any) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped, **options)
    return path


def read_bytes(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Type, shape and bytes of every tensor, by its range."""
    data = path.read_bytes()
    return {
        name: (stored.dtype.name, stored.shape, data[stored.offset : stored.offset + stored.nbytes])
        for name, stored in read_pickled(path).items()
    }


def show(tensor: torch.Tensor) -> tuple[str, tuple[int, ...], bytes]:
    """The same of a tensor in memory."""
    plain = tensor.detach().contiguous()
    data = bytes(plain.clone().untyped_storage()) if plain.numel() else b""
    return str(plain.dtype).removeprefix("torch."), tuple(plain.shape), data


def make(dtype: str, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """A tensor of random bytes (of bools: zeros and ones)."""
    kind = getattr(torch, dtype)
    size = int(np.prod(shape, dtype=np.int64)) * BY_NAME[dtype].itemsize
    data = np.random.default_rng(seed).integers(0, 2 if dtype == "bool" else 256, size, np.uint8)
    return torch.from_numpy(data).view(kind).reshape(shape) if size else torch.empty(shape, dtype=kind)


def refuse(path: Path, error: type[PymergeError] = FormatError) -> str:
    with pytest.raises(error) as caught:
        read_pickled(path)
    message = str(caught.value)
    assert str(path) in message
    return message


@st.composite
def state_dicts(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    """Tensors of all kinds: views into a common storage, parameters, the same one twice, of no element."""
    state: dict[str, torch.Tensor] = {}
    for name in draw(st.lists(st.text(st.characters(codec="utf-8"), max_size=6), min_size=1, max_size=6, unique=True)):
        dtype = draw(st.sampled_from(DTYPES))
        shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
        tensor = make(dtype, shape, draw(st.integers(0, 9)))
        how = draw(st.sampled_from(["plain", "view", "parameter", "twice"]))
        if how == "view" and shape and shape[0] > 1:
            tensor = tensor[1:]
        elif how == "parameter" and tensor.is_floating_point():
            tensor = torch.nn.Parameter(tensor)
        elif how == "twice" and state:
            tensor = next(iter(state.values()))
        state[name] = tensor
    return state


@FORMATS
@given(state=state_dicts(), ordered=st.booleans(), protocol=st.sampled_from([2, 3, 4, 5]))
@MANY
def test_every_tensor_is_a_range_of_the_file(
    tmp_path: Path, zipped: bool, state: dict[str, torch.Tensor], ordered: bool, protocol: int
) -> None:
    path = save(OrderedDict(state) if ordered else state, tmp_path / "x.bin", zipped, pickle_protocol=protocol)
    assert read_bytes(path) == {name: show(tensor) for name, tensor in state.items()}


@FORMATS
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_is_read(tmp_path: Path, zipped: bool, dtype: str) -> None:
    tensor = make(dtype, (3, 5))
    assert read_bytes(save({"a": tensor, "b": tensor[1:]}, tmp_path / "x.pt", zipped))["b"] == show(tensor[1:])


@FORMATS
def test_a_modules_state_dict_is_read_with_its_metadata_and_attributes(tmp_path: Path, zipped: bool) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    module[0].weight.note = "kept by torch, and ignored"
    state = module.state_dict(keep_vars=True)
    assert state._metadata
    assert read_bytes(save(state, tmp_path / "x.bin", zipped)) == {name: show(each) for name, each in state.items()}


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "module"])
def test_a_wrapped_state_dict_is_unwrapped(tmp_path: Path, key: str) -> None:
    tensor = torch.ones(2)
    held = {"epoch": 3, "best": 0.5, "names": ["a", ("b", None)], key: {"w": tensor}}
    assert read_bytes(save(held, tmp_path / "x.ckpt")) == {"w": show(tensor)}


def test_tensors_besides_the_state_dict_are_refused(tmp_path: Path) -> None:
    held = {"state_dict": {"w": torch.ones(2)}, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}
    assert "1 tensors besides its state dict" in refuse(save(held, tmp_path / "x.pt"))


def test_what_is_no_tensor_is_refused_by_its_name(tmp_path: Path) -> None:
    assert '"step" is no tensor but int' in refuse(save({"w": torch.ones(2), "step": 3}, tmp_path / "x.pt"))


@pytest.mark.parametrize("value", [[torch.ones(2)], torch.ones(2), {}, {"a": 1}, 7, None])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, value: Any) -> None:
    assert "state dict" in refuse(save(value, tmp_path / "x.pt")) or isinstance(value, dict)


@FORMATS
def test_views_that_are_not_contiguous_are_refused_by_name(tmp_path: Path, zipped: bool) -> None:
    said = refuse(save({"good": torch.ones(2, 3), "bad": torch.ones(2, 3).T}, tmp_path / "x.pt", zipped))
    assert 'tensor "bad" of shape [3, 2] has strides [1, 3]' in said
    assert ".contiguous()" in said
    assert '"w"' in refuse(save({"w": torch.ones(1).expand(4)}, tmp_path / "y.pt", zipped))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("make_other", "says"),
    [
        (lambda: torch.eye(3).to_sparse(), "sparse tensors; save what .to_dense()"),
        (lambda: torch.eye(3).to_sparse_csr(), "sparse tensors"),
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "save what .dequantize() gives"),
        (lambda: torch.ones(3, device="meta"), "without data"),
        (lambda: torch.ones(3, dtype=torch.complex128), "complex128"),
        (lambda: torch.ones(3, dtype=torch.complex64).conj(), "conjugate"),
    ],
)
def test_other_kinds_of_tensors_are_refused(tmp_path: Path, make_other: Callable[[], torch.Tensor], says: str) -> None:
    assert says in refuse(save({"w": make_other()}, tmp_path / "x.pt"), DTypeError)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (torch.nn.Linear(2, 2), '"torch.nn.modules.linear.Linear", which is no part of weights'),
        ({"w": np.ones(3)}, "numpy"),
        ({"w": {1, 2}}, '.set", which is no part'),
    ],
)
def test_objects_are_refused_by_their_class(tmp_path: Path, value: Any, says: str) -> None:
    assert says in refuse(save(value, tmp_path / "x.pt"), PymergeError)


def rewrite(path: Path, change: Callable[[str, bytes], bytes], **options: Any) -> Path:
    """The same archive, written by Python, with changed entries."""
    other = path.with_name("other.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w", **options) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))
    return other


def test_an_archive_that_something_else_wrote_is_read(tmp_path: Path) -> None:
    path = save({"w": torch.arange(5.0)}, tmp_path / "x.pt")
    assert read_bytes(rewrite(path, lambda name, data: data)) == read_bytes(path)


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    path = save({"w": torch.arange(5.0)}, tmp_path / "x.pt")
    assert "is compressed" in refuse(rewrite(path, lambda name, data: data, compression=zipfile.ZIP_DEFLATED))


def test_big_endian_is_refused(tmp_path: Path) -> None:
    path = save({"w": torch.arange(5.0)}, tmp_path / "x.pt")
    said = refuse(rewrite(path, lambda name, data: b"big" if name.endswith("byteorder") else data))
    assert "its byte order is big" in said


def test_a_storage_of_another_size_is_refused(tmp_path: Path) -> None:
    path = save({"w": torch.arange(5.0)}, tmp_path / "x.pt")
    said = refuse(rewrite(path, lambda name, data: data[:-1] if name.endswith("data/0") else data))
    assert 'storage "0" has 19 bytes, and its tensors say 20' in said


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_program_is_refused(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "x.pt")
    assert "is a TorchScript program" in refuse(tmp_path / "x.pt")


@FORMATS
@given(st.data())
@MANY
def test_whatever_bytes_are_changed_it_is_read_or_refused(tmp_path: Path, zipped: bool, data: st.DataObject) -> None:
    path = tmp_path / "x.bin"
    if not path.exists():
        save({"w": torch.arange(5.0), "v": torch.arange(6).reshape(2, 3)[1:]}, path, zipped)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    other = tmp_path / "other.bin"
    other.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2, 30, 3, 0]))])
    try:
        tensors = read_pickled(other)
    except PymergeError:
        return
    assert all(stored.offset + stored.nbytes <= len(content) for stored in tensors.values())


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_the_interpreter_agrees_with_pickle_on_plain_values(tmp_path: Path, protocol: int) -> None:
    value = {"a": [1, -1, 2**31, -(2**63), True, None, 1.5], "b": ("x" * 300, b"y", ()), 3: {"c": [[], {}]}}
    data = pickle.dumps(value, protocol)
    for content in (data, pickletools.optimize(data)):
        (tmp_path / "p").write_bytes(content + b"rest")
        with (tmp_path / "p").open("rb") as file:
            assert unpickle(file, len(data), "p").value == value
            assert file.read() == b"rest"


def test_steps_and_bytes_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save({"w": torch.ones(2)}, tmp_path / "x.pt", False)
    for name in ("MAX_STEPS", "MAX_BYTES"):
        with monkeypatch.context() as patched:
            patched.setattr(unpickling, name, 30)
            assert "more than any model needs" in refuse(path)


def write_folder(folder: Path, state: dict[str, torch.Tensor], config: dict[str, Any], shards: int = 1) -> Path:
    """A model folder of pickled weights."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    names = list(state)
    weight_map = {}
    for number in range(shards):
        part = names[number * len(names) // shards : (number + 1) * len(names) // shards]
        file = "pytorch_model.bin" if shards == 1 else f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        save({name: state[name] for name in part}, folder / file)
        weight_map.update(dict.fromkeys(part, file))
    if shards > 1:
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.mark.parametrize("shards", [1, 3])
def test_a_merge_of_pickled_weights_gives_the_bytes_of_safetensors(here: Path, shards: int) -> None:
    from safetensors.torch import load_file

    results = []
    for seed, name in enumerate(("base", "math", "code")):
        folder = toys.write_llama(here / "safetensors" / name, seed=seed)
        write_folder(here / "pickle" / name, load_file(folder / "model.safetensors"), toys.llama_config(), shards)
    for kind in ("safetensors", "pickle"):
        parameters = {"weight": 0.5, "density": 0.4}
        recipe = {
            "merge_method": "ties",
            "base_model": f"{kind}/base",
            "dtype": "bfloat16",
            "models": [{"model": f"{kind}/{name}", "parameters": parameters} for name in ("math", "code")],
        }
        pymerge.merge(recipe, here / "out" / kind)
        results.append((here / "out" / kind / "model.safetensors").read_bytes())
    assert results[0] == results[1]
    assert pymerge.verify(here / "out" / "pickle", sample=3).status.value == "passed"
    assert pymerge.compare("pickle/base", "safetensors/base").agree
    assert take_inventory("pickle/base")["formats"] == ["pickle"]


def test_one_pickled_file_is_looked_at_as_a_model(here: Path) -> None:
    save({"w": torch.ones(3)}, here / "a.pt")
    save({"w": torch.ones(3)}, here / "b.bin", False)
    assert take_inventory("a.pt")["count"] == 1
    assert pymerge.compare("a.pt", "b.bin").agree


def test_safetensors_come_before_pickled_weights(tmp_path: Path) -> None:
    folder = toys.write_checkpoint(tmp_path / "m", {"w": np.ones(2, np.float32)}, {})
    save({"v": torch.ones(3)}, folder / "pytorch_model.bin")
    assert list(open_checkpoint(ModelRef(str(folder))).tensors) == ["w"]


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ({"a": "../x.bin"}, "is not a plain file name in the same folder"),
        ({"a": "gone.bin"}, "the shard gone.bin is missing"),
        ({"ghost": "pytorch_model-00001-of-00002.bin"}, '"ghost" is not in pytorch_model-00001-of-00002.bin'),
        ({"a": None}, 'not in the index ("a")'),
    ],
)
def test_an_index_of_pickled_shards_is_checked_as_any(tmp_path: Path, edit: dict[str, str | None], says: str) -> None:
    folder = write_folder(tmp_path / "m", {name: torch.ones(2) for name in "abcd"}, {}, shards=2)
    path = folder / "pytorch_model.bin.index.json"
    weight_map = json.loads(path.read_text())["weight_map"] | edit
    path.write_text(json.dumps({"weight_map": {name: file for name, file in weight_map.items() if file}}))
    with pytest.raises(FormatError, match=r".") as caught:
        open_checkpoint(ModelRef(str(folder)))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        ({}, {"model.embed_tokens.weight"}),
        ({"tie_word_embeddings": True}, {"model.embed_tokens.weight"}),
        ({"text_config": {"tie_word_embeddings": True}}, {"model.embed_tokens.weight"}),
        ({"tie_word_embeddings": False}, {"model.embed_tokens.weight", "lm_head.weight"}),
    ],
)
def test_of_tied_weights_the_embedding_is_kept(tmp_path: Path, config: dict[str, Any], kept: set[str]) -> None:
    shared = torch.ones(4, 2)
    state = {
        "lm_head.weight": shared,
        "model.embed_tokens.weight": shared,
        "x.bias": torch.ones(4),
        "y.bias": torch.ones(4),
    }
    folder = write_folder(tmp_path / "m", state, config)
    assert open_checkpoint(ModelRef(str(folder))).tensors.keys() == {*kept, "x.bias", "y.bias"}


def test_of_an_embedding_of_encoder_and_decoder_the_shared_one_is_kept(tmp_path: Path) -> None:
    shared = torch.ones(4, 2)
    names = ("encoder.embed_tokens.weight", "shared.weight", "lm_head.weight")
    folder = write_folder(tmp_path / "m", dict.fromkeys(names, shared), {})
    assert list(open_checkpoint(ModelRef(str(folder))).tensors) == ["shared.weight"]


@FORMATS
def test_the_digest_of_a_header_is_of_what_is_said_not_of_the_data(tmp_path: Path, zipped: bool) -> None:
    path = save({"w": torch.ones(4), "v": torch.ones(2)}, tmp_path / "x.bin", zipped)
    before, stored, content = digest_header(path), read_pickled(path)["w"], path.read_bytes()
    at = stored.offset
    path.write_bytes(content[:at] + b"data" + content[at + 4 :])
    assert digest_header(path) == before
    path.write_bytes(content.replace(b"\x01\x00\x00\x00v", b"\x01\x00\x00\x00u"))
    assert digest_header(path) != before
    assert not any(begin <= at < end for begin, end in list_looked_at(path))
