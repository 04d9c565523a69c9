"""What `verify` says of an output that is damaged in one way or another; inputs are not needed for it."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from verify.outputs import (
    BF16,
    INDEX,
    LAYERS,
    MANIFEST,
    bf16,
    edit,
    failed,
    find,
    fix_digest,
    make_models,
    make_output,
    messages,
    overwrite,
    stored,
)

import pymerge
from pymerge.errors import RecipeError
from pymerge.execute.journal import JOURNAL
from pymerge.verify.values import Status

NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output in several files; tests that change it take a copy."""
    return make_output(tmp_path_factory.mktemp("merged"))


@pytest.fixture
def out(merged: Path, tmp_path: Path) -> Path:
    """A copy of the output to damage."""
    return Path(shutil.copytree(merged, tmp_path / "out"))


def check(folder: Path) -> Any:
    return pymerge.verify(folder, sample=0)


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("model-*.safetensors"))


def test_what_a_merge_wrote_passes_every_check(merged: Path) -> None:
    found = pymerge.verify(merged, sample=None)
    assert {check.name: check.status for check in found.checks} == dict.fromkeys(
        ("manifest", "files", "index", "config", "digests", "finite", "inputs", "recomputed"), Status.PASSED
    )
    assert found.status is Status.PASSED
    assert len(found.recomputed) == len(json.loads((merged / INDEX).read_text())["weight_map"])


def test_nothing_is_written(merged: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in merged.iterdir()}
    pymerge.verify(merged)
    assert {path.name: path.stat().st_mtime_ns for path in merged.iterdir()} == before


def test_a_single_file_needs_no_index(tmp_path: Path) -> None:
    assert pymerge.verify(make_output(tmp_path, shard_size=0)).status is Status.PASSED


@pytest.mark.parametrize("bit", [0, 7])
def test_one_flipped_bit_is_seen_by_its_tensors_digest(out: Path, bit: int) -> None:
    tensor = stored(out, NAME)
    with Path(tensor.path).open("r+b") as file:
        file.seek(tensor.offset + tensor.nbytes - 1)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ (1 << bit)]))
    found = check(out)
    assert "digests" in failed(found)
    assert [finding.tensor for finding in find(found, "digests").wrong] == [NAME]


def test_a_tensor_that_the_index_leaves_out_is_found(out: Path) -> None:
    edit(out / INDEX, lambda index: index["weight_map"].pop(NAME))
    found = check(out)
    assert failed(found) == {"index"}
    assert f"lacks 1 tensors of {Path(stored_path(out)).name}: {NAME}" in messages(found, "index")


def stored_path(out: Path) -> str:
    return next(str(path) for path in shards(out) if NAME.encode() in path.read_bytes())


def test_a_tensor_that_the_index_puts_elsewhere_is_found(out: Path) -> None:
    edit(out / INDEX, lambda index: index["weight_map"].update({NAME: shards(out)[0].name}))
    assert f"{NAME}: is not in model-00001" in messages(check(out), "index")


@pytest.mark.parametrize("file", [7, None, "", "..", "../model.safetensors", "a\0b"])
def test_an_index_that_names_no_file_of_the_folder_is_found(out: Path, file: Any) -> None:
    shutil.copy(shards(out)[0], out.parent / "model.safetensors")
    edit(out / INDEX, lambda index: index["weight_map"].update({NAME: file}))
    found = check(out)
    assert failed(found) == {"index"}
    (out / MANIFEST).unlink()
    assert failed(check(out)) == {"index"}
    assert NAME in messages(found, "index")


def test_names_that_no_file_can_have_and_no_terminal_should_see_are_told_in_escapes(out: Path) -> None:
    name = "a\ud800\x1b[31m\n"
    edit(out / INDEX, lambda index: index["weight_map"].update({name: name}))
    edit(out / MANIFEST, lambda manifest: manifest["digests"].update({name: "0"}))
    edit(out / MANIFEST, lambda manifest: manifest["outputs"].append({"name": name, "size": 1, "header_blake2b": "0"}))
    found = check(out)
    assert {"files", "index", "digests"} <= failed(found)
    assert json.dumps(found.to_json(), ensure_ascii=False).encode()
    assert "a\\ud800\\u001b[31m\\u000a: is not in the folder" in messages(found, "digests")


def test_a_wrong_total_size_is_found(out: Path) -> None:
    edit(out / INDEX, lambda index: index["metadata"].update(total_size=1))
    assert "total_size = 1" in messages(check(out), "index")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": 3}'])
def test_a_damaged_index_is_found(out: Path, text: str) -> None:
    (out / INDEX).write_text(text)
    assert failed(check(out)) == {"index"}


def test_an_index_that_is_gone_is_found(out: Path) -> None:
    (out / INDEX).unlink()
    assert "no index" in messages(check(out), "index")


def test_swapped_files_are_found(out: Path) -> None:
    first, second, *_ = shards(out)
    first.rename(out / "aside")
    second.rename(first)
    (out / "aside").rename(second)
    assert {"files", "index"} <= failed(check(out))


def test_a_truncated_file_is_found(out: Path) -> None:
    file = shards(out)[1]
    file.write_bytes(file.read_bytes()[:-2])
    found = check(out)
    assert {"files", "digests"} <= failed(found)
    assert f"{file.name}: has" in messages(found, "files")


def test_a_file_that_is_gone_is_found(out: Path) -> None:
    file = shards(out)[1]
    file.unlink()
    found = check(out)
    assert f"{file.name}: is missing" in messages(found, "files")
    assert "which is missing" in messages(found, "index")


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_no_flipped_bit_of_a_weight_file_passes(merged: Path, tmp_path: Path, data: st.DataObject) -> None:
    file = shards(merged)[0]
    content = bytearray(file.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    # The header as often as the data, which is much longer.
    place = data.draw(st.one_of(st.integers(0, header - 1), st.integers(header, len(content) - 1)))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    out = tmp_path / "flipped"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(merged, out, copy_function=os.link)
    (out / file.name).unlink()
    (out / file.name).write_bytes(content)
    assert pymerge.verify(out, sample=1).status is Status.FAILED


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_no_flipped_bit_of_another_file_ends_the_program(merged: Path, tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([INDEX, MANIFEST, "config.json", "mergekit_config.yml"]))
    content = bytearray((merged / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    out = tmp_path / "flipped"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(merged, out, copy_function=os.link)
    (out / name).unlink()
    (out / name).write_bytes(content)
    assert pymerge.verify(out, sample=1).status in Status


@pytest.mark.parametrize("name", ["model-00009-of-00009.safetensors", ".model-00001-of-00002.safetensors.partial"])
def test_a_weight_file_that_belongs_to_nothing_is_found(out: Path, name: str) -> None:
    shutil.copy(shards(out)[0], out / name)
    found = check(out)
    assert failed(found) == {"files"}
    assert name in messages(found, "files")


def test_a_merge_that_is_not_finished_is_told(out: Path) -> None:
    (out / JOURNAL).write_text("")
    assert "is not finished; run it again" in messages(check(out), "files")


def test_a_tensor_in_two_files_is_found(out: Path) -> None:
    first, second, *_ = shards(out)
    shutil.copy(first, second)
    assert f"is in {first.name} as well" in messages(check(out), "files")


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("vocab_size", 95, "embed_tokens.weight has 96 rows"),
        ("num_hidden_layers", LAYERS + 1, f"the tensors have {LAYERS} layers"),
        ("hidden_size", 64, "rows of model.embed_tokens.weight have 32"),
        ("torch_dtype", "float16", "the tensors are bfloat16"),
    ],
)
def test_a_config_that_says_something_else_than_the_tensors_is_found(
    out: Path, key: str, value: Any, text: str
) -> None:
    edit(out / "config.json", lambda config: config.update({key: value}))
    found = check(out)
    assert failed(found) == {"config"}
    assert f"{key} = {value}" in messages(found, "config")
    assert text in messages(found, "config")


@pytest.mark.parametrize("text", ["", "[]", None])
def test_a_config_that_cannot_be_read_is_found(out: Path, text: str | None) -> None:
    (out / "config.json").unlink()
    if text is not None:
        (out / "config.json").write_text(text)
    assert failed(check(out)) == {"config"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_found_though_its_digest_is_right(out: Path, value: float) -> None:
    tensor = stored(out, NAME)
    for index in (41, 7):
        overwrite(tensor, index, bf16(value))
    fix_digest(out, tensor)
    found = check(out)
    assert failed(found) == {"finite"}
    assert "2 values are not finite, the first at flat index 7" in messages(found, "finite")


def make_nonfinite(folder: Path) -> Path:
    models = make_models(folder)
    overwrite(stored(models[0], NAME), 5, bf16(math.inf))
    return make_output(folder, models=models, allow_nonfinite=True)


def test_what_was_allowed_not_to_be_finite_passes(tmp_path: Path) -> None:
    found = pymerge.verify(make_nonfinite(tmp_path), sample=None)
    assert found.status is Status.PASSED
    assert "1 values of 1 tensors are not, as was allowed" in find(found, "finite").summary


def test_more_than_was_allowed_does_not_pass(tmp_path: Path) -> None:
    out = make_nonfinite(tmp_path)
    tensor = stored(out, NAME)
    overwrite(tensor, 6, bf16(math.nan))
    fix_digest(out, tensor)
    found = check(out)
    assert failed(found) == {"finite"}
    assert "2 values are not finite, the first at flat index 5; the merge counted 1" in messages(found, "finite")


def test_less_than_was_allowed_does_not_pass(tmp_path: Path) -> None:
    out = make_nonfinite(tmp_path)
    tensor = stored(out, NAME)
    overwrite(tensor, 5, bf16(1))
    fix_digest(out, tensor)
    assert failed(check(out)) == {"finite"}


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, BF16])
def test_every_type_passes_and_its_infinities_are_seen(tmp_path: Path, dtype: Any) -> None:
    name = np.dtype(dtype).name
    out = make_output(tmp_path, models=make_models(tmp_path, dtype=dtype, config={"torch_dtype": name}))
    assert pymerge.verify(out, sample=None).status is Status.PASSED
    overwrite(stored(out, NAME), 3, np.array([np.inf], dtype).tobytes())
    assert "finite" in failed(check(out))


def test_integers_are_digested_and_always_finite(tmp_path: Path) -> None:
    extra = {"steps": np.full(9, -1), "flags": np.array([True, False])}
    out = make_output(tmp_path, models=make_models(tmp_path, extra=extra))
    assert pymerge.verify(out, sample=None).status is Status.PASSED
    overwrite(stored(out, "steps"), 0, bytes(8))
    assert failed(pymerge.verify(out, sample=None)) == {"digests", "recomputed"}


def test_without_a_manifest_the_other_checks_are_made(out: Path) -> None:
    (out / MANIFEST).unlink()
    found = pymerge.verify(out)
    assert found.status is Status.INCOMPLETE
    done = {check.name for check in found.checks if check.status is Status.PASSED}
    assert done == {"files", "index", "config", "finite"}


def test_a_manifest_of_another_version_is_not_guessed_at(out: Path) -> None:
    edit(out / MANIFEST, lambda manifest: manifest.update(format=99))
    found = pymerge.verify(out)
    assert found.status is Status.INCOMPLETE
    assert "is of format 99" in messages(found, "manifest")


@pytest.mark.parametrize("text", ["", "[]", "\xff"])
def test_a_manifest_that_is_no_json_is_damaged(out: Path, text: str) -> None:
    (out / MANIFEST).write_bytes(text.encode("latin-1"))
    assert failed(pymerge.verify(out)) == {"manifest"}


@pytest.mark.parametrize("key", ["pymerge", "seed", "settings", "inputs", "outputs", "extras", "report", "digests"])
@pytest.mark.parametrize(
    "value", [None, 3, "text", [3], {"a": 3}, [{"model": "m", "files": [3]}], [{"name": "../x", "size": 3}]]
)
def test_a_manifest_with_nonsense_in_it_never_ends_the_program(out: Path, key: str, value: Any) -> None:
    edit(out / MANIFEST, lambda manifest: manifest.update({key: value}))
    assert pymerge.verify(out, sample=1).status in Status


def test_a_digest_of_a_tensor_that_is_not_there_and_a_tensor_without_one_are_found(out: Path) -> None:
    edit(out / MANIFEST, lambda manifest: manifest["digests"].update({"ghost": manifest["digests"].pop(NAME)}))
    text = messages(check(out), "digests")
    assert "ghost: is not in the folder" in text
    assert f"{NAME}: is not in the manifest" in text


def test_bytes_that_were_shared_and_never_read_have_no_digest_to_fail(out: Path) -> None:
    edit(out / MANIFEST, lambda manifest: manifest["digests"].update({NAME: None}))
    found = check(out)
    assert found.status is Status.PASSED
    assert "1 have none" in find(found, "digests").summary


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such folder"):
        pymerge.verify(tmp_path / "nowhere")


def test_an_empty_folder_fails(tmp_path: Path) -> None:
    assert {"files", "config"} <= failed(pymerge.verify(tmp_path))


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5", "mixtral", "gpt_neox", "gemma2", "qwen2"])
def test_the_config_of_every_family_fits_its_tensors(toy: Callable[..., Path], tmp_path: Path, family: str) -> None:
    models = [toy(family, seed=seed) for seed in range(2)]
    assert find(check(make_output(tmp_path, models=models)), "config").status is Status.PASSED


def test_models_written_by_others_have_nothing_that_is_wrong(tmp_path: Path) -> None:
    model = toys.write_llama(tmp_path / "m", dtype=BF16)
    found = pymerge.verify(model)
    assert found.status is Status.INCOMPLETE
    assert not failed(found)


def test_a_header_that_gives_other_shapes_to_the_same_bytes_is_seen(out: Path) -> None:
    path, content = next((path, data) for path in shards(out) if b'"model.norm.weight"' in (data := path.read_bytes()))
    shape = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["model.norm.weight"]["shape"]
    # As long as before: a padding byte of the header makes room for the second dimension.
    before, after = (json.dumps({"shape": dims}, separators=(",", ":"))[1:-1].encode() for dims in (shape, [*shape, 1]))
    changed = content.replace(before, after, 1)
    end = 8 + int.from_bytes(content[:8], "little")
    assert changed[end : end + 2] == b"  "
    path.write_bytes(changed[:end] + changed[end + 2 :])
    assert failed(check(out)) == {"files"}
    assert "its header is not the one that the merge wrote" in messages(check(out), "files")
