"""Merges of a hub's models: the bytes of a local merge, nothing asked for that is not needed, and what goes wrong."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hub import server
from typer.testing import CliRunner

import pymerge
from pymerge.cli import app
from pymerge.errors import FormatError, PymergeError, RecipeError, ResourceError
from pymerge.execute import Progress
from pymerge.hub import requests
from pymerge.verify.values import Status

SLERP = {
    "merge_method": "slerp",
    "base_model": "org/base",
    "models": [{"model": "org/base"}, {"model": "org/one"}],
    "parameters": {"t": 0.3},
}
TIES = {
    "merge_method": "ties",
    "base_model": "org/base",
    "models": [{"model": f"org/{name}", "parameters": {"weight": 0.5, "density": 0.5}} for name in ("one", "two")],
    "dtype": "bfloat16",
}
STACK = {
    "merge_method": "passthrough",
    "slices": [
        {"sources": [{"model": "org/base", "layer_range": [0, 1]}]},
        {"sources": [{"model": "org/one", "layer_range": [2, 3]}]},
    ],
}
GLOBAL = {**TIES, "parameters": {"trim_scope": "global"}}
RECIPES = {"slerp": SLERP, "ties": TIES, "stack": STACK, "ties-global": GLOBAL}
SHARD = "model-{:05d}-of-00004.safetensors"


def contents(folder: Path) -> dict[str, bytes]:
    """All files of an output whose bytes do not tell of time or place."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("pymerge_manifest.json", "README.md")
    }


def merge_locally(recipe: dict[str, Any], models: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same recipe where the models are folders."""
    with monkeypatch.context() as patch:
        patch.chdir(models.parent)
        pymerge.merge(recipe, out)
    return out


@pytest.mark.parametrize("name", RECIPES)
def test_a_merge_from_the_hub_has_the_bytes_of_a_local_one(
    name: str, hub: server.FakeHub, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = merge_locally(RECIPES[name], models, tmp_path / "local", monkeypatch)
    pymerge.merge(RECIPES[name], tmp_path / "out")
    assert contents(tmp_path / "out") == contents(local)


def test_only_what_is_needed_is_asked_for(hub: server.FakeHub, tmp_path: Path) -> None:
    pymerge.merge(STACK, tmp_path / "out")
    # Of base, embeddings and layer 0; of one, layer 2 and the last tensors, which are in the first file.
    assert sorted(hub.fetched()) == sorted([SHARD.format(1), SHARD.format(1), SHARD.format(3)])
    assert len(hub.fetched()) == 3
    names = {path.rpartition("/")[2] for path in hub.asked() if "/resolve/" in path}
    small = {name for name in names if not name.endswith(".safetensors")}
    assert small == {"config.json", "model.safetensors.index.json", "tokenizer.json", "tool.jinja"}
    assert not any("two" in path for path in hub.asked())


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"merge_method": "slurp"}, 'did you mean "slerp"'),
        ({"parameters": {"t": 0.3, "x": 1}}, "slerp does not read x"),
        ({"models": [{"model": "org/base"}, {"model": "org/narrow"}]}, "shape"),
    ],
)
def test_a_recipe_with_a_mistake_fetches_no_weights(
    change: dict[str, Any], part: str, hub: server.FakeHub, tmp_path: Path
) -> None:
    import toys

    hub.add("org/narrow", toys.write_llama(tmp_path / "narrow"))
    with pytest.raises(PymergeError, match=part):
        pymerge.merge({**SLERP, **change}, tmp_path / "out")
    assert hub.fetched() == []
    assert not (tmp_path / "out").exists()


def test_merging_goes_on_while_the_last_file_is_still_to_come(hub: server.FakeHub, tmp_path: Path) -> None:
    def written() -> bool:
        """Whether an output file is whole, under its final name."""
        return wait_for(lambda: bool(list((tmp_path / "out").glob("model-00001-of-*.safetensors"))))

    hub.faults[SHARD.format(4)] = server.Fault(hold=written)
    report = pymerge.merge(SLERP, tmp_path / "out", shard_size=150_000)
    assert len(report.shards) > 4


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


def test_the_plan_says_what_will_be_fetched(hub: server.FakeHub, models: Path, tmp_path: Path) -> None:
    (tmp_path / "r.yml").write_text(json.dumps(SLERP))
    result = CliRunner().invoke(app, ["plan", str(tmp_path / "r.yml"), "--format", "json"])
    sizes = [path.stat().st_size for name in ("base", "one") for path in (models / name).glob("*.safetensors")]
    assert json.loads(result.stdout)["fetched"] == sum(sizes)
    assert "to fetch" in CliRunner().invoke(app, ["plan", str(tmp_path / "r.yml")]).stdout
    pymerge.merge(SLERP, tmp_path / "out")
    assert "to fetch" not in CliRunner().invoke(app, ["plan", str(tmp_path / "r.yml")]).stdout


def test_progress_counts_what_came(hub: server.FakeHub, models: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    pymerge.merge(SLERP, tmp_path / "out", on_progress=seen.append)
    total = sum(path.stat().st_size for name in ("base", "one") for path in (models / name).glob("*.safetensors"))
    assert (seen[-1].fetched, seen[-1].to_fetch) == (total, total)


def test_a_connection_that_is_cut_is_taken_up_where_it_was(
    hub: server.FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 30_000)
    hub.faults[SHARD.format(2)] = server.Fault(cut=100_000, times=1)
    pymerge.merge({**SLERP, "models": [{"model": "org/base"}, {"model": "org/two"}]}, tmp_path / "out")
    ranges = [each.range for each in hub.requests if each.path.endswith(SHARD.format(2)) and each.server == "cdn"]
    assert len(ranges) == 3  # the header, the first attempt, the rest
    assert ranges[2] == "bytes=90000-"


FAULTS = {
    "cut for good": (server.Fault(cut=0), "connection to the hub failed"),
    "forbidden": (server.Fault(status=403), "the hub refuses it"),
    "gone": (server.Fault(status=404), "404"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_cannot_come_ends_the_merge_and_the_same_command_goes_on(
    fault: str, hub: server.FakeHub, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.faults[SHARD.format(3)], part = FAULTS[fault]
    with pytest.raises(FormatError, match=part) as caught:
        pymerge.merge(SLERP, tmp_path / "out")
    assert caught.value.exit_code == 3
    assert f": {SHARD.format(3)}: " in str(caught.value)
    assert 'model "org/' in str(caught.value)
    assert not (tmp_path / "out" / "config.json").exists()
    hub.faults.clear()
    hub.requests.clear()
    pymerge.merge(SLERP, tmp_path / "out")
    assert SHARD.format(1) not in hub.fetched()
    assert contents(tmp_path / "out") == contents(merge_locally(SLERP, models, tmp_path / "local", monkeypatch))


def test_a_file_of_another_size_than_the_hub_says_is_refused(hub: server.FakeHub, tmp_path: Path) -> None:
    original = server._sibling

    def lie(name: str, data: bytes) -> dict[str, Any]:
        found = original(name, data)
        return {**found, "size": len(data) + 4} if name == SHARD.format(2) else found

    server._sibling = lie
    try:
        with pytest.raises(FormatError, match=r"model-00002-of-00004.safetensors: 4 bytes after the last tensor"):
            pymerge.merge(SLERP, tmp_path / "out")
    finally:
        server._sibling = original
    assert hub.fetched() == []


def test_a_gated_model_asks_for_its_license_and_a_token(hub: server.FakeHub, tmp_path: Path) -> None:
    hub.repos["org/one"].gated = True
    with pytest.raises(FormatError, match=r"is gated.*accept it at .*/org/one, then set HF_TOKEN"):
        pymerge.merge(SLERP, tmp_path / "out")


def test_a_model_that_is_nowhere_is_named_with_its_line(hub: server.FakeHub, tmp_path: Path) -> None:
    (tmp_path / "r.yml").write_text(
        "merge_method: linear\nmodels:\n  - model: org/nothing\n    parameters: {weight: 1}\n"
    )
    with pytest.raises(RecipeError, match=r'r.yml:3:12: model "org/nothing" is neither a folder here nor'):
        pymerge.plan(tmp_path / "r.yml")


def test_a_revision_that_is_not_there_is_a_mistake_of_the_recipe(hub: server.FakeHub) -> None:
    with pytest.raises(RecipeError, match='"org/one" has no such revision'):
        pymerge.plan({**SLERP, "models": [{"model": "org/base"}, {"model": "org/one@v9"}]})


def test_the_token_goes_to_the_hub_and_nowhere_else(
    hub: server.FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.repos["org/one"].private = hub.repos["org/base"].gated = True
    pymerge.merge(SLERP, tmp_path / "out")
    assert {each.token for each in hub.requests if each.server == "hub"} == {"Bearer hf_secret"}
    assert {each.token for each in hub.requests if each.server == "cdn"} == {None}


def test_without_a_network_the_cache_is_enough(
    hub: server.FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    pymerge.merge(SLERP, tmp_path / "out")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    pymerge.merge(SLERP, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "out")
    inputs = [json.loads((tmp_path / out / "pymerge_manifest.json").read_text())["inputs"] for out in ("out", "again")]
    assert inputs[0] == inputs[1]
    with pytest.raises(RecipeError, match="HF_HUB_OFFLINE"):
        pymerge.plan(TIES)
    assert hub.requests == []


def test_verify_makes_tensors_again_from_the_cache(hub: server.FakeHub, cache: Path, tmp_path: Path) -> None:
    pymerge.merge(SLERP, tmp_path / "out")
    hub.requests.clear()
    assert pymerge.verify(tmp_path / "out").status is Status.PASSED
    shutil.rmtree(cache)
    found = pymerge.verify(tmp_path / "out")
    assert found.status is Status.INCOMPLETE
    assert "--model NAME=FOLDER says where it is" in str(found.checks)
    assert hub.requests == []


def test_a_stopped_merge_goes_on_though_files_were_fetched_meanwhile(
    hub: server.FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from execute import merges

    def stop(progress: Progress) -> None:
        if progress.written > progress.total // 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        merges.take_small_steps(patch)
        with pytest.raises(KeyboardInterrupt):
            pymerge.merge(SLERP, tmp_path / "out", on_progress=stop, threads=1, shard_size=300_000)
    report = pymerge.merge(SLERP, tmp_path / "out", shard_size=300_000)
    assert report.execution.kept > 0
    pymerge.merge(SLERP, tmp_path / "whole", shard_size=300_000)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_full_disk_is_found_before_anything_is_fetched(
    hub: server.FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(
        ResourceError, match=r"bytes of weights are to be fetched, and its disk has 1,000,000 free"
    ) as no:
        pymerge.merge(SLERP, tmp_path / "out")
    assert no.value.exit_code == 5
    assert hub.fetched() == []


def test_a_disk_that_fills_up_while_fetching_is_no_fault_of_the_file(
    hub: server.FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    import huggingface_hub

    real = huggingface_hub.hf_hub_download

    def fill(repo: str, name: str, **options: Any) -> str:
        if name == SHARD.format(2):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(repo, name, **options)

    monkeypatch.setattr(requests, "_takes_bars", lambda hub: True)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fill)
    with pytest.raises(ResourceError, match=r"the disk of the hub's cache is full.*--transformers-cache"):
        pymerge.merge(SLERP, tmp_path / "out")


def test_the_cache_can_be_another_folder(hub: server.FakeHub, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "r.yml").write_text(json.dumps(SLERP))
    options = ["--transformers-cache", str(tmp_path / "elsewhere"), "-q"]
    result = CliRunner().invoke(app, ["merge", str(tmp_path / "r.yml"), str(tmp_path / "out"), *options])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "elsewhere" / "models--org--one").is_dir()
    assert not (cache / "models--org--one").exists()


def test_long_headers_take_a_second_request(
    hub: server.FakeHub, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "_FIRST", 64)
    plan = pymerge.plan(SLERP)
    assert hub.fetched() == []
    (checkpoint,) = [model for model in plan.models if model.ref.path == "org/one"]
    for path, file in checkpoint.remote.items():
        data = (models / "one" / path.name).read_bytes()
        assert file.header == data[: 8 + int.from_bytes(data[:8], "little")]


def test_a_commit_that_is_named_is_taken_whatever_came_later(
    hub: server.FakeHub, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.repos["org/one"].commit
    recipe = {**SLERP, "models": [{"model": "org/base"}, {"model": f"org/one@{commit}"}]}
    plan = pymerge.plan(recipe)
    assert plan.models[1].folder.name == commit
    assert plan.warnings == ()


@pytest.mark.parametrize("mode", ["random", "cheap_embed"])
def test_a_mixture_of_the_hubs_models_has_the_bytes_of_a_local_one(
    mode: str, hub: server.FakeHub, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Instead of a tokenizer, which these models do not have.
    encoder = SimpleNamespace(encode=lambda prompt, rows: [ord(each) % rows for each in prompt])
    monkeypatch.setattr("pymerge.gates.find.Prompts", lambda base: encoder)
    recipe = {
        "base_model": "org/base",
        "gate_mode": mode,
        "experts": [{"source_model": f"org/{name}", "positive_prompts": [name]} for name in ("two", "one")],
    }
    with monkeypatch.context() as patch:
        patch.chdir(models.parent)
        pymerge.moe(recipe, tmp_path / "local")
    pymerge.moe(recipe, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "local")
    # Every file once: what routers are worked out from is fetched before all else, and not again.
    assert len(hub.fetched()) == 9
