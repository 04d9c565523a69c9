"""A hub of this machine's own, and three models on it that are also folders."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import toys
from hub import server
from safetensors.numpy import save_file

WIDTH = 160


def write_sharded(folder: Path, seed: int, shards: int) -> Path:
    """A Llama-like model, a layer to a file, in shards of 350 kB."""
    random = np.random.default_rng(seed)
    shapes = toys.llama_shapes(layers=toys.LAYERS, width=WIDTH, inner=48, vocabulary=toys.VOCABULARY)
    tensors = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    folder.mkdir(parents=True)
    config = toys.llama_config(hidden_size=WIDTH)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text("# not a file that merges need")
    (folder / "training_args.bin").write_bytes(b"nor this one")
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    weight_map: dict[str, str] = {}
    parts: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        layer = int(name.split(".")[2]) if "layers." in name else 0
        file = f"model-{layer + 1:05d}-of-{shards:05d}.safetensors"
        weight_map[name] = file
        parts.setdefault(file, {})[name] = tensor
    for file, part in parts.items():
        save_file(part, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def only_here(look_up: Callable[..., Any]) -> Callable[..., Any]:
    """Names are looked up of this machine alone."""

    def refuse_others(host: Any, *args: Any, **options: Any) -> Any:
        assert host in ("127.0.0.1", b"127.0.0.1"), f"a request left the loopback address: {host}"
        return look_up(host, *args, **options)

    return refuse_others


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`org/base`, with a tokenizer, and `org/one` in four shards; `org/two` in one file."""
    folder = tmp_path_factory.mktemp("hub-models") / "org"
    for seed, (name, shards) in enumerate({"base": 4, "one": 4, "two": 1}.items()):
        write_sharded(folder / name, seed, shards)
    (folder / "base" / "tokenizer.json").write_text("{}")
    (folder / "base" / "additional_chat_templates").mkdir()
    (folder / "base" / "additional_chat_templates" / "tool.jinja").write_text("{{ messages }}")
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hub-cache"


@pytest.fixture
def hub(models: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[server.FakeHub]:
    """A hub with the models, and a client that knows no other; its cache is empty."""
    import huggingface_hub
    from huggingface_hub import constants, file_download

    with server.running({f"org/{path.name}": path for path in models.iterdir()}) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(socket, "getaddrinfo", only_here(socket.getaddrinfo))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        # A second between attempts is for servers that recover; these do what they are told.
        time = file_download.time
        quick = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: time.sleep(min(seconds, 0.01))})
        monkeypatch.setattr(file_download, "time", quick)
        yield hub
        huggingface_hub.close_session()
