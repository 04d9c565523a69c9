"""What else a hub's model can be: an adapter, pickled, hostile, or something that cannot be looked for at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub import server
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import pymerge
from pymerge.errors import FormatError, RecipeError
from pymerge.hub import Hub, models
from pymerge.hub.names import choose_small, choose_weights
from pymerge.plan.missing import list_missing

ONE = {"merge_method": "linear", "models": [{"model": "org/one", "parameters": {"weight": 1.0}}]}

TWO = {"merge_method": "linear", "models": [{"model": "org/two", "parameters": {"weight": 1.0}}]}


def write_adapter(folder: Path, width: int) -> Path:
    folder.mkdir()
    random = np.random.default_rng(9)
    module = "base_model.model.model.layers.1.self_attn.q_proj"
    factors = {
        f"{module}.lora_{side}.weight": random.standard_normal(shape).astype(np.float32)
        for side, shape in {"A": (4, width), "B": (width, 4)}.items()
    }
    save_file(factors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    return folder


def test_an_adapter_from_the_hub_is_applied(hub: server.FakeHub, models: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "lora", 160)
    hub.add("org/lora", adapter)
    for name, model in {"hub": f"{models / 'one'}+org/lora", "here": f"{models / 'one'}+{adapter}"}.items():
        pymerge.merge({**ONE, "models": [{"model": model, "parameters": {"weight": 1.0}}]}, tmp_path / name)
    assert (tmp_path / "hub" / "model.safetensors").read_bytes() == (
        tmp_path / "here" / "model.safetensors"
    ).read_bytes()
    assert hub.fetched() == ["adapter_model.safetensors"]


def test_an_adapter_named_as_a_model_is_told(hub: server.FakeHub, tmp_path: Path) -> None:
    hub.add("org/lora", write_adapter(tmp_path / "lora", 160))
    with pytest.raises(FormatError, match=r"no config.json of it: it is an adapter; name it with its model"):
        pymerge.plan({**ONE, "models": [{"model": "org/lora", "parameters": {"weight": 1.0}}]})


def test_pickled_weights_are_fetched_before_the_plan(hub: server.FakeHub, models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    tensors = load_file(models / "two" / "model.safetensors")
    torch.save({name: torch.from_numpy(tensor) for name, tensor in tensors.items()}, folder / "pytorch_model.bin")
    (folder / "config.json").write_bytes((models / "two" / "config.json").read_bytes())
    hub.add("org/pickled", folder)
    recipe = {**ONE, "models": [{"model": "org/pickled", "parameters": {"weight": 1.0}}]}
    plan = pymerge.plan(recipe)
    assert hub.fetched() == ["pytorch_model.bin"]
    assert {task.name for task in plan.tasks} == tensors.keys()
    pymerge.merge(recipe, tmp_path / "out")
    assert hub.fetched() == ["pytorch_model.bin"]


def test_a_model_without_weights_says_what_it_has(hub: server.FakeHub) -> None:
    files = hub.repos["org/two"].files
    files["two.Q4.gguf"] = files.pop("model.safetensors")
    with pytest.raises(FormatError, match=r"no weights under .*; it has training_args.bin, two.Q4.gguf"):
        pymerge.plan(TWO)


def test_a_small_file_that_is_huge_is_not_fetched(hub: server.FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MAX_BYTES", 10_000)
    hub.repos["org/one"].files["tokenizer.json"] = b" " * 10_001
    with pytest.raises(FormatError, match=r"tokenizer.json has 10,001 bytes, more than any model needs"):
        pymerge.plan(ONE)
    assert not any("tokenizer.json" in path for path in hub.asked())


def test_what_is_no_safetensors_file_is_refused_by_its_first_bytes(hub: server.FakeHub) -> None:
    hub.repos["org/two"].files["model.safetensors"] = b"\xff" * 5000
    with pytest.raises(FormatError, match=r"model.safetensors: header length .* is past the end of the file"):
        pymerge.plan(TWO)
    assert hub.fetched() == []


NAMES = st.one_of(
    st.sampled_from(
        ["config.json", "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "tokenizer.json"]
    ),
    st.text(max_size=20),
    st.sampled_from(["../secret", "a/../../b.safetensors", "/etc/passwd", "additional_chat_templates/../x.jinja"]),
)


@given(names=st.sets(NAMES), index=st.none() | st.dictionaries(st.text(max_size=3), NAMES | st.integers()))
def test_no_name_leads_out_of_a_models_folder(names: set[str], index: dict[str, Any] | None) -> None:
    chosen = [
        *choose_small(names, adapter=False),
        *choose_weights(names, None if index is None else {"weight_map": index}, adapter=False),
    ]
    for name in chosen:
        assert not os.path.isabs(name)
        assert ".." not in name.split("/")
        assert name in names or name == "config.json"


def test_a_hub_that_cannot_be_reached_is_replaced_by_its_cache_with_a_warning(
    hub: server.FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pymerge.merge(ONE, tmp_path / "out")

    def fail(*args: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(models, "list_files", fail)
    plan = pymerge.plan(ONE)
    commit = hub.repos["org/one"].commit[:8]
    assert [problem.message for problem in plan.warnings] == [
        f'the hub cannot be reached: "org/one" is taken from its cache, as of commit {commit}',
        'the hub\'s cache has no tokenizer of "org/one"',
    ]
    with pytest.raises(FormatError, match=r"connection to the hub failed .no route to host.*it is no folder here"):
        pymerge.plan(TWO)


def test_a_cache_behind_a_link_is_found(hub: server.FakeHub, tmp_path: Path) -> None:
    (tmp_path / "big-disk").mkdir()
    (tmp_path / "link").symlink_to("big-disk")
    pymerge.merge(ONE, tmp_path / "out", cache=tmp_path / "link")
    assert len(hub.fetched()) == 4
    plan = pymerge.plan(ONE, cache=tmp_path / "link")
    assert list_missing(plan) == {}
    assert plan.models[0].remote.keys() == {path for path, *_ in plan.models[0].files}


def test_without_the_library_the_way_to_install_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(RecipeError, match=r"pip install 'pymerge\[hub\]'"):
        Hub().locate("org/one", None, False)


def test_a_merge_of_folders_never_loads_the_library(models: Path, tmp_path: Path) -> None:
    script = "import sys, pymerge; pymerge.merge(sys.argv[1], sys.argv[2]); assert 'huggingface_hub' not in sys.modules"
    recipe = f"merge_method: linear\nmodels: [{{model: {models / 'one'}, parameters: {{weight: 1}}}}]\n"
    subprocess.run([sys.executable, "-c", script, recipe, str(tmp_path / "out")], check=True)


def test_ctrl_c_stops_within_a_second_and_leaves_no_half_files(
    hub: server.FakeHub, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "r.yml").write_text(json.dumps(ONE))
    for shard in range(1, 5):
        hub.faults[f"model-{shard:05d}-of-00004.safetensors"] = server.Fault(rate=20_000)
    settings = {
        "HF_ENDPOINT": hub.address,
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
    }
    command = [sys.executable, "-m", "pymerge", "merge", str(tmp_path / "r.yml"), str(tmp_path / "out")]
    process = subprocess.Popen(command, env={**os.environ, **settings}, stderr=subprocess.PIPE, text=True)
    while not hub.fetched():
        assert process.poll() is None
        time.sleep(0.02)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=20)
    assert time.monotonic() - began < 1.5, told
    assert process.returncode == 130, told
    assert not list(cache.rglob("*.incomplete"))
    assert not (tmp_path / "out" / "config.json").exists()
