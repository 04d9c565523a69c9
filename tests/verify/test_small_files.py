"""What stands beside the weights: whether it is still what the merge wrote; and outputs that are no model's folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import toys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from typer.testing import CliRunner
from verify.outputs import MANIFEST, edit, failed, find, make_models, make_output, messages

import pymerge
from pymerge.cli import app
from pymerge.errors import RecipeError
from pymerge.verify.values import Status

SMALL = ("tokenizer.json", "chat_template.jinja", "generation_config.json", "mergekit_config.yml")
JSON = ("config.json", "model.safetensors.index.json")


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output with all kinds of small files; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("merged")
    models = make_models(folder)
    for name in SMALL[:-1]:
        (models[0] / name).write_text('{"some": "text"}')
    return make_output(folder, models=models)


@pytest.fixture
def out(merged: Path, tmp_path: Path) -> Path:
    """A copy of the output to damage."""
    return Path(shutil.copytree(merged, tmp_path / "out"))


def check(folder: Path) -> Any:
    return pymerge.verify(folder, sample=0)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("content", [b"", b'{"other": "text"}'])
def test_a_small_file_that_is_not_what_was_written_is_found(out: Path, name: str, content: bytes) -> None:
    (out / name).write_bytes(content)
    found = check(out)
    assert failed(found) == {"files"}
    assert f"{name}: is not what the merge wrote" in messages(found, "files")


@pytest.mark.parametrize("name", SMALL[:-1])
def test_a_small_file_that_is_gone_is_found(out: Path, name: str) -> None:
    (out / name).unlink()
    assert f"{name}: is missing" in messages(check(out), "files")


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_no_flipped_bit_of_a_small_file_passes(merged: Path, tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([*SMALL, *JSON]))
    content = bytearray((merged / name).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    out = tmp_path / "flipped"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(merged, out)
    (out / name).write_bytes(content)
    assert check(out).status is Status.FAILED


@pytest.mark.parametrize(("name", "kind"), [("config.json", "config"), ("model.safetensors.index.json", "index")])
def test_a_json_file_that_says_the_same_in_other_words_is_found_by_its_own_check(
    out: Path, name: str, kind: str
) -> None:
    edit(out / name, lambda values: values)
    found = check(out)
    assert failed(found) == {kind}
    assert f"{name}: is not what the merge wrote" in messages(found, kind)


def test_a_card_may_be_edited_or_removed_and_the_first_is_told(out: Path) -> None:
    (out / "README.md").write_text("# My model\n")
    found = check(out)
    assert found.status is Status.PASSED
    assert "README.md was changed" in find(found, "files").summary
    (out / "README.md").unlink()
    assert check(out).status is Status.PASSED


def test_folders_of_versions_that_kept_no_digests_are_still_checked(out: Path) -> None:
    edit(out / MANIFEST, lambda manifest: manifest.pop("files"))
    assert pymerge.verify(out).status is Status.PASSED
    (out / "tokenizer.json").unlink()
    assert failed(check(out)) == {"files"}


@pytest.mark.parametrize("files", [3, [], {"/etc/hostname": "0"}, {"../m/config.json": "0"}, {"config.json": None}])
def test_digests_that_are_nonsense_never_end_the_program(out: Path, files: Any) -> None:
    edit(out / MANIFEST, lambda manifest: manifest.update(files=files))
    found = check(out)
    assert found.status is Status.FAILED
    assert "hostname: is not what" not in messages(found, "files")


def make_adapter(folder: Path) -> Path:
    """A sum of two adapters of one base, one of which stores a tensor whole."""
    base = toys.write_llama(folder / "base", layers=2, dtype=ml_dtypes.bfloat16)
    random = np.random.default_rng(3)
    for name, rank in (("x", 2), ("y", 3)):
        factors = {
            f"base_model.model.model.layers.1.self_attn.q_proj.lora_{part}.weight": random.standard_normal(shape)
            for part, shape in (("A", (rank, toys.WIDTH)), ("B", (toys.WIDTH, rank)))
        }
        (folder / name).mkdir()
        save_file({key: value.astype(np.float32) for key, value in factors.items()}, folder / name / WEIGHTS)
        config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": ["q_proj"]}
        (folder / name / "adapter_config.json").write_text(json.dumps(config))
    models = [{"model": f"{base}+{folder / name}", "parameters": {"weight": 0.5}} for name in "xy"]
    recipe = {"merge_method": "linear", "models": models, "dtype": "float32"}
    pymerge.merge(recipe, folder / "adapter", out_format="adapter")
    return folder / "adapter"


WEIGHTS = "adapter_model.safetensors"


def test_an_adapter_is_verified_like_a_model(tmp_path: Path) -> None:
    found = pymerge.verify(make_adapter(tmp_path), sample=None)
    assert {check.name: check.status for check in found.checks} == dict.fromkeys(
        ("manifest", "files", "index", "config", "digests", "finite", "inputs", "recomputed"), Status.PASSED
    ), found
    assert len(found.recomputed) == 2


def test_an_adapter_that_is_damaged_fails(tmp_path: Path) -> None:
    out = make_adapter(tmp_path)
    content = (out / WEIGHTS).read_bytes()
    (out / WEIGHTS).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert {"digests", "recomputed"} <= failed(pymerge.verify(out, sample=None))
    (out / WEIGHTS).write_bytes(content)
    edit(out / "adapter_config.json", lambda config: config.update(r=1))
    assert failed(pymerge.verify(out)) == {"config"}
    (out / "adapter_config.json").unlink()
    assert failed(pymerge.verify(out)) == {"config"}


def test_an_adapter_without_a_manifest_has_nothing_that_is_wrong(tmp_path: Path) -> None:
    make_adapter(tmp_path)
    found = pymerge.verify(tmp_path / "x")
    assert found.status is Status.INCOMPLETE
    assert not failed(found)


def test_an_adapter_takes_the_place_of_a_model_and_the_other_way(tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path)
    sum_of_adapters = (adapter / "mergekit_config.yml").read_text()
    models = make_models(tmp_path)
    (models[0] / "tokenizer.json").write_text("{}")
    model = {"merge_method": "passthrough", "models": [{"model": str(models[0])}]}
    assert pymerge.merge(model, adapter, overwrite=True, shard_size=20_000).warnings == ()
    assert pymerge.verify(adapter).status is Status.PASSED
    assert not (adapter / "adapter_config.json").exists()
    assert pymerge.merge(sum_of_adapters, adapter, overwrite=True, out_format="adapter").warnings == ()
    assert pymerge.verify(adapter).status is Status.PASSED
    assert sorted(path.name for path in adapter.iterdir()) == [
        "README.md", "adapter_config.json", WEIGHTS, "mergekit_config.yml", "pymerge_manifest.json",
    ]  # fmt: skip


def test_a_dry_run_of_an_adapter_looks_at_its_folder(tmp_path: Path) -> None:
    out = make_adapter(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in (out, *out.iterdir())}
    dry = ["merge", str(out / "mergekit_config.yml"), str(out), "--out-format", "adapter", "--dry-run"]
    assert CliRunner().invoke(app, dry).exit_code == 2
    assert CliRunner().invoke(app, [*dry, "--overwrite"]).exit_code == 0
    assert CliRunner().invoke(app, [*dry[:2], str(tmp_path / "x"), *dry[3:], "--overwrite"]).exit_code == 2
    assert {path.name: path.stat().st_mtime_ns for path in (out, *out.iterdir())} == before


def test_a_file_is_refused_with_what_can_be_done(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(RecipeError, match=r"is a file.*pymerge verify .*model\.gguf OTHER"):
        pymerge.verify(file)


def test_a_name_that_is_too_long_is_no_folder() -> None:
    done = CliRunner().invoke(app, ["verify", "x" * 300])
    assert done.exit_code == 2
    assert "there is no such folder" in done.output
