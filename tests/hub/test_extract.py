"""Adapters of models of the hub."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub import server

import pymerge
from pymerge import api_extract
from pymerge.errors import FormatError

SHARD = "model-00003-of-00004.safetensors"


def test_an_adapter_of_the_hubs_models_is_that_of_folders(
    hub: server.FakeHub, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = api_extract.plan_lora("org/one", "org/base", max_rank=2)
    assert planned.describe()["fetched"] > 0
    fetched = pymerge.extract_lora("org/one", "org/base", tmp_path / "fetched", max_rank=2)
    with monkeypatch.context() as patch:
        patch.chdir(models.parent)
        local = pymerge.extract_lora("org/one", "org/base", tmp_path / "local", max_rank=2)
    assert fetched.matrices == local.matrices
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "fetched" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    assert "base_model: org/base" in (tmp_path / "fetched" / "README.md").read_text()


def test_a_file_that_cannot_come_ends_it_without_an_adapter(hub: server.FakeHub, tmp_path: Path) -> None:
    hub.faults[SHARD] = server.Fault(status=403)
    with pytest.raises(FormatError, match="the hub refuses it"):
        pymerge.extract_lora("org/one", "org/base", tmp_path / "out")
    assert not (tmp_path / "out").exists()
