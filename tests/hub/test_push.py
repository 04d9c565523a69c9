"""Uploads: what was written is what the hub has, each file as soon as it is whole, and nothing else."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from hub import server
from typer.testing import CliRunner

import pymerge
from pymerge.cli import app
from pymerge.errors import FormatError, RecipeError, ResourceError
from pymerge.hub import push

SLERP = {
    "merge_method": "slerp",
    "base_model": "org/base",
    "models": [{"model": "org/base"}, {"model": "org/one"}],
    "parameters": {"t": 0.3},
}

#: What huggingface_hub does to its own client.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(autouse=True)
def _token(hub: server.FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_writer")


@pytest.fixture(scope="module")
def made(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A merge of folders."""
    folder = tmp_path_factory.mktemp("made") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(models.parent)
        pymerge.merge(SLERP, folder, shard_size=300_000)
    return folder


@pytest.fixture
def merged(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(made, tmp_path / "out"))


def written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_pushed_is_what_was_written_and_merges_again(
    hub: server.FakeHub, merged: Path, tmp_path: Path
) -> None:
    (merged / "notes.txt").write_text("mine")
    result = CliRunner().invoke(app, ["push", str(merged), "me/merged", "--private", "-m", "first"])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{hub.address}/me/merged\n"
    repo = hub.repos["me/merged"]
    assert repo.private
    expected = {name: data for name, data in written(merged).items() if name != "notes.txt"}
    assert {name: data for name, data in repo.files.items() if name != ".gitattributes"} == expected
    recipe = {"merge_method": "linear", "models": [{"model": "me/merged", "parameters": {"weight": 1.0}}]}
    pymerge.merge(recipe, tmp_path / "again", shard_size=300_000)
    for path in merged.glob("*.safetensors"):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_weights_of_an_earlier_model_go(hub: server.FakeHub, merged: Path) -> None:
    hub.repos["me/merged"] = server.Repo(
        {"model.safetensors": b"old", "pytorch_model.bin": b"older", "LICENSE": b"mine"}
    )
    push(merged, "me/merged")
    assert "LICENSE" in hub.repos["me/merged"].files
    assert not hub.repos["me/merged"].files.keys() & {"model.safetensors", "pytorch_model.bin"}


def test_what_shall_be_private_does_not_go_where_everybody_reads(hub: server.FakeHub, merged: Path) -> None:
    hub.repos["me/merged"] = server.Repo()
    with pytest.raises(RecipeError, match="everybody may read it"):
        push(merged, "me/merged", private=True)
    assert hub.repos["me/merged"].files == {}


def test_a_branch_that_is_named_is_made(hub: server.FakeHub, merged: Path) -> None:
    assert push(merged, "me/merged", revision="try-2").endswith("/me/merged/tree/try-2")
    assert hub.branches == ["try-2"]
    assert any(path.endswith("/commit/try-2") for path in hub.asked())


@pytest.mark.parametrize("lacking", ["pymerge_manifest.json", "config.json"])
def test_a_folder_that_is_no_finished_merge_is_refused(lacking: str, hub: server.FakeHub, merged: Path) -> None:
    (merged / lacking).unlink()
    with pytest.raises(RecipeError, match=f"holds no finished merge .it has no {lacking}"):
        push(merged, "me/merged")
    assert hub.requests == []


def test_an_unfinished_merge_is_refused(hub: server.FakeHub, merged: Path) -> None:
    (merged / ".pymerge.journal").touch()
    with pytest.raises(RecipeError, match="holds an unfinished merge"):
        push(merged, "me/merged")


def test_a_weight_file_that_is_cut_is_refused(hub: server.FakeHub, merged: Path) -> None:
    shard = sorted(merged.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(FormatError, match=f"{shard.name}: is not the file that was written"):
        push(merged, "me/merged")
    assert hub.requests == []


def test_a_manifest_cannot_name_files_of_other_folders(hub: server.FakeHub, merged: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("key")
    manifest = json.loads((merged / "pymerge_manifest.json").read_text())
    (merged / "pymerge_manifest.json").write_text(json.dumps({**manifest, "extras": ["../secret"]}))
    with pytest.raises(FormatError, match=r"names a file of another folder: \.\./secret"):
        push(merged, "me/merged")
    assert hub.requests == []


def test_a_shard_is_uploaded_while_others_are_still_merged(hub: server.FakeHub, tmp_path: Path) -> None:
    def uploaded() -> bool:
        until = time.monotonic() + 10
        while not (found := any(each.method == "PUT" for each in hub.requests)) and time.monotonic() < until:
            time.sleep(0.01)
        return found

    hub.faults["model-00004-of-00004.safetensors"] = server.Fault(hold=uploaded)
    report = pymerge.merge(SLERP, tmp_path / "out", shard_size=150_000, push="me/merged")
    assert report.pushed == f"{hub.address}/me/merged"
    files = hub.repos["me/merged"].files
    assert {name: data for name, data in files.items() if name != ".gitattributes"} == written(tmp_path / "out")


def test_without_the_right_to_write_nothing_is_merged(
    hub: server.FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ResourceError, match=r'"me/merged" cannot be written on .*HF_TOKEN'):
        pymerge.merge(SLERP, tmp_path / "out", push="me/merged")
    assert hub.fetched() == []
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_none_is_refused_before_anything(hub: server.FakeHub, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="the form is user/name"):
        pymerge.merge(SLERP, tmp_path / "out", push="merged")
    assert hub.fetched() == []


def test_an_upload_that_fails_leaves_a_whole_merge_and_says_how_to_go_on(
    hub: server.FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.hf_api.HfApi.create_commit", fail)
    with pytest.raises(ResourceError, match=r"the merge is whole in .*: pymerge push .* me/merged"):
        pymerge.merge(SLERP, tmp_path / "out", push="me/merged")
    assert (tmp_path / "out" / "config.json").exists()


def test_ctrl_c_while_uploading_does_not_say_that_nothing_is_there(
    hub: server.FakeHub, merged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("huggingface_hub.hf_api.HfApi.create_commit", interrupt)
    result = CliRunner().invoke(app, ["push", str(merged), "me/merged"])
    assert result.exit_code == 130
    assert result.stderr == f"error: interrupted; the merge is whole in {merged}: pymerge push {merged} me/merged\n"


def fail(*args: object, **options: object) -> None:
    raise ConnectionError("the line went dead")
