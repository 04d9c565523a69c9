"""The output folder: refusals before a merge, order and completeness after it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from contextlib import nullcontext
from pathlib import Path

import pytest
from output.schedules import EXECUTION, RECIPE, make_model, make_schedule

from pymerge.errors import RecipeError, ResourceError
from pymerge.output import finish, prepare
from pymerge.output import folder as stage


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    prepare(make_schedule(make_model(tmp_path / "m")), out)
    assert out.is_dir()


def test_an_empty_folder_is_accepted(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert prepare(make_schedule(make_model(tmp_path / "m")), out).stale == ()


def test_a_folder_with_something_in_it_is_refused_by_name(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").touch()
    with pytest.raises(RecipeError, match=r"not empty.*thesis\.txt.*--overwrite"):
        prepare(make_schedule(make_model(tmp_path / "m")), out)


def test_a_file_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.touch()
    with pytest.raises(RecipeError, match="is a file"):
        prepare(make_schedule(make_model(tmp_path / "m")), out)


def test_overwriting_an_input_is_refused(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m")
    link = tmp_path / "link"
    link.symlink_to(model.folder)
    with pytest.raises(RecipeError, match="is the folder of model"):
        prepare(make_schedule(model), link, overwrite=True)
    assert (model.folder / "model.safetensors").exists()


def test_overwrite_takes_index_and_config_away_first_and_shards_last(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    weights = [".model-00002-of-00009.safetensors.partial", "model-00001-of-00009.safetensors"]
    for name in ("config.json", "model.safetensors.index.json", "mine.txt", *weights):
        (out / name).write_text("old")
    schedule = make_schedule(make_model(tmp_path / "m"))
    preparation = prepare(schedule, out, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == sorted([".pymerge.journal", "mine.txt", *weights])
    (out / "model.safetensors").touch()
    finish(schedule, preparation, EXECUTION, settings={})
    assert not any((out / name).exists() for name in weights)
    assert (out / "mine.txt").read_text() == "old"


def test_a_disk_too_small_for_all_shards_copies_included_is_refused_with_the_bytes_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage.shutil, "disk_usage", lambda _: Usage(free=1000))
    with pytest.raises(ResourceError, match=r"writes 4,024 bytes.*1,000 free.*3,024 more"):
        prepare(make_schedule(make_model(tmp_path / "m"), make_model(tmp_path / "n"), nbytes=4000), tmp_path / "out")


@pytest.mark.parametrize(("recorded", "fits"), [(("a", "b"), True), (("a",), False), ((), False)])
def test_a_finished_shard_needs_no_room_if_all_of_it_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: tuple[str, ...], fits: bool
) -> None:
    schedule = make_schedule(make_model(tmp_path / "m"), make_model(tmp_path / "n"), nbytes=40_000)
    with prepare(schedule, tmp_path / "out").journal as journal:
        (tmp_path / "out" / "model.safetensors").write_bytes(bytes(schedule.shards[0].size))
        journal.record(dict.fromkeys(recorded, "0" * 32))
    monkeypatch.setattr(stage.shutil, "disk_usage", lambda _: Usage(free=1000))
    with nullcontext() if fits else pytest.raises(ResourceError, match="make room for"):
        prepare(schedule, tmp_path / "out")


def test_a_disk_without_a_size_has_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage.shutil, "disk_usage", lambda _: Usage(free=0, total=0))
    prepare(make_schedule(make_model(tmp_path / "m")), tmp_path / "out")
    assert (tmp_path / "out").is_dir()


class Usage:
    """What shutil.disk_usage answers."""

    def __init__(self, free: int, total: int = 10**9) -> None:
        self.free, self.total = free, total


def complete(tmp_path: Path, *, shards: int = 1, tokenizer: bool = True, card: bool = True) -> Path:
    """A finished folder whose shards are empty files."""
    model = make_model(tmp_path / "m", tokenizer__json="T", generation_config__json="G")
    schedule = make_schedule(model, make_model(tmp_path / "n"), shards=shards)
    preparation = prepare(schedule, tmp_path / "out")
    for shard in schedule.shards:
        (tmp_path / "out" / shard.name).touch()
    finish(
        schedule, preparation, EXECUTION, settings={"backend": "cpu"}, copy_tokenizer=tokenizer, write_model_card=card
    )
    return tmp_path / "out"


def replace(tmp_path: Path, **options: bool) -> tuple[Path, tuple[str, ...]]:
    """Another merge over the output of `complete`, of a model without small files; it and its warnings."""
    schedule = make_schedule(make_model(tmp_path / "plain"))
    preparation = prepare(schedule, tmp_path / "out", overwrite=True)
    report = finish(schedule, preparation, EXECUTION, settings={}, **options)
    return tmp_path / "out", report.warnings


SMALL = ["README.md", "generation_config.json", "tokenizer.json"]


def test_what_an_older_merge_wrote_goes_with_it(tmp_path: Path) -> None:
    complete(tmp_path)
    out, warnings = replace(tmp_path, write_model_card=False)
    assert not [name for name in SMALL if (out / name).exists()]
    assert warnings == ()


def test_templates_of_an_older_merge_go_with_their_folder(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m")
    (model.folder / "additional_chat_templates").mkdir()
    (model.folder / "additional_chat_templates" / "tool.jinja").write_text("{{ tool }}")
    schedule = make_schedule(model)
    finish(schedule, prepare(schedule, tmp_path / "out"), EXECUTION, settings={})
    assert (tmp_path / "out" / "additional_chat_templates" / "tool.jinja").exists()
    assert not (replace(tmp_path)[0] / "additional_chat_templates").exists()


def test_what_the_user_changed_or_brought_stays_and_is_named(tmp_path: Path) -> None:
    out = complete(tmp_path)
    (out / "README.md").write_text("my own words")
    (out / "merges.txt").write_text("mine")
    (out / "notes.txt").write_text("of no name that a merge writes")
    (warning,) = replace(tmp_path, write_model_card=False)[1]
    assert f"{out}: README.md, merges.txt stood there before" in warning
    assert (out / "README.md").read_text() == "my own words"
    assert {"merges.txt", "notes.txt"} <= {path.name for path in out.iterdir()}
    assert not (out / "tokenizer.json").exists()


def test_a_manifest_without_digests_still_says_what_was_copied(tmp_path: Path) -> None:
    out = complete(tmp_path)
    manifest = json.loads((out / "pymerge_manifest.json").read_text())
    del manifest["files"]
    (out / "pymerge_manifest.json").write_text(json.dumps(manifest))
    (warning,) = replace(tmp_path, write_model_card=False)[1]
    assert "README.md stood there before" in warning
    assert not (out / "tokenizer.json").exists()


@pytest.mark.parametrize("manifest", [None, "", "[]", '{"extras": 3}', '{"extras": ["../m/config.json"]}'])
def test_without_a_manifest_nobody_knows_whose_files_those_are(tmp_path: Path, manifest: str | None) -> None:
    out = complete(tmp_path)
    (out / "pymerge_manifest.json").unlink()
    if manifest is not None:
        (out / "pymerge_manifest.json").write_text(manifest)
    (warning,) = replace(tmp_path)[1]
    assert "generation_config.json, tokenizer.json stood there before" in warning
    assert (out / "tokenizer.json").exists()


def test_the_manifest_has_a_digest_of_every_small_file(tmp_path: Path) -> None:
    out = complete(tmp_path, shards=2)
    manifest = json.loads((out / "pymerge_manifest.json").read_text())
    assert sorted(manifest["files"]) == sorted(
        [*SMALL, "config.json", "mergekit_config.yml", "model.safetensors.index.json"]
    )
    for name, digest in manifest["files"].items():
        assert digest == hashlib.sha256((out / name).read_bytes()).hexdigest()


def test_one_shard_needs_no_index(tmp_path: Path) -> None:
    assert not (complete(tmp_path) / "model.safetensors.index.json").exists()


def test_the_index_names_the_shard_of_every_tensor(tmp_path: Path) -> None:
    index = json.loads((complete(tmp_path, shards=2) / "model.safetensors.index.json").read_text())
    assert index == {
        "metadata": {"total_size": 32},
        "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"},
    }


def test_the_config_is_the_plans(tmp_path: Path) -> None:
    config = json.loads((complete(tmp_path) / "config.json").read_text())
    assert config == {"architectures": ["LlamaForCausalLM"], "torch_dtype": "float32"}


def test_the_recipe_is_kept_verbatim(tmp_path: Path) -> None:
    assert (complete(tmp_path) / "mergekit_config.yml").read_text() == RECIPE


def test_the_config_is_the_last_file_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    original = stage.write_json
    monkeypatch.setattr(stage, "write_json", lambda path, value: (written.append(path.name), original(path, value)))
    complete(tmp_path, shards=2)
    assert written == ["pymerge_manifest.json", "model.safetensors.index.json", "config.json"]


def test_without_the_tokenizer_the_generation_config_still_comes(tmp_path: Path) -> None:
    out = complete(tmp_path, tokenizer=False)
    assert not (out / "tokenizer.json").exists()
    assert (out / "generation_config.json").read_text() == "G"


def test_the_model_card_can_be_left_out(tmp_path: Path) -> None:
    assert not (complete(tmp_path, card=False) / "README.md").exists()


def test_the_manifest_tells_inputs_and_settings_and_no_absolute_path(tmp_path: Path) -> None:
    text = (complete(tmp_path) / "pymerge_manifest.json").read_text()
    manifest = json.loads(text)
    assert manifest["settings"] == {"backend": "cpu"}
    assert manifest["seed"] == 7
    entry = manifest["inputs"][0]["files"][0]
    assert (entry["name"], entry["size"], len(entry["header_blake2b"])) == ("model.safetensors", 48, 32)


def test_nothing_temporary_is_left(tmp_path: Path) -> None:
    assert not [path.name for path in complete(tmp_path).iterdir() if "partial" in path.name]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_files_get_the_mode_that_the_umask_asks_for(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        out = complete(tmp_path)
    finally:
        os.umask(before)
    for name in ("config.json", "tokenizer.json", "README.md"):
        assert stat.S_IMODE((out / name).stat().st_mode) == 0o666 & ~umask
