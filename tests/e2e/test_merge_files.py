"""Single files merge name by name: to the bytes of state dicts in memory, into one file, as --keys says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from execute.merges import METHODS, random_tensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import deserialize, safe_open
from safetensors.numpy import save_file
from typer.testing import CliRunner

import pymerge
from pymerge.cli import app
from pymerge.errors import DTypeError, FormatError, PymergeError, RecipeError, ResourceError, ShapeError
from pymerge.execute.journal import claim
from pymerge.output import single_file

CODES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64"}
MODELS = [random_tensors(seed) for seed in range(4)]
METADATA = {"modelspec.architecture": "stable-diffusion-v1", "note": "ü\n"}
FEW = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def content(merged: Mapping[str, Any]) -> dict[str, tuple[str, list[int], bytes]]:
    """Type, shape and bytes of each array."""
    return {name: (CODES[str(a.dtype)], list(a.shape), a.tobytes()) for name, a in merged.items()}


def read(path: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """The same of a file."""
    found = deserialize(path.read_bytes())
    return {name: (view["dtype"], list(view["shape"]), bytes(view["data"])) for name, view in found}


def write(path: Path, tensors: Mapping[str, Any], metadata: dict[str, str] | None = None) -> str:
    save_file(dict(tensors), path, metadata)
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("files")
    return [write(folder / f"m{place}.safetensors", tensors) for place, tensors in enumerate(MODELS)]


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["merge-files", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("method", METHODS)
def test_a_file_is_merged_to_the_bytes_of_a_state_dict(tmp_path: Path, files: list[str], method: str) -> None:
    count, based, shared, each = METHODS[method]
    name, places = method.partition("-")[0], range(based, based + count)
    parameters = {**shared, **{key: [value] * count for key, value in each.items()}}
    out = tmp_path / "out.safetensors"
    report = pymerge.merge_files(
        name, [files[at] for at in places], base=files[0] if based else None, parameters=parameters, out=out, seed=3
    )
    base = MODELS[0] if based else None
    merged = pymerge.merge_state_dicts(name, [MODELS[at] for at in places], base=base, parameters=parameters, seed=3)
    assert read(out) == content(merged)
    assert (report.shards, report.folder, report.warnings) == (("out.safetensors",), tmp_path, ())
    assert [path.name for path in tmp_path.iterdir()] == ["out.safetensors"]


def test_pickled_files_give_the_bytes_of_safetensors(here: Path, files: list[str]) -> None:
    import torch
    from safetensors.torch import load_file

    pickled = [f"m{place}.{end}" for place, end in enumerate(("bin", "pt", "pth", "ckpt"))]
    for number, (old, new) in enumerate(zip(files, pickled, strict=True)):
        # Copies: torch's old format refuses tensors of several types in one mapped file.
        state = {name: tensor.clone() for name, tensor in load_file(old).items()}
        torch.save({"state_dict": state} if number % 2 else state, new, _use_new_zipfile_serialization=number > 1)
    options: dict[str, Any] = {"parameters": {"weight": [0.5, 0.3, 0.2], "density": 0.5}, "seed": 1}
    pymerge.merge_files("dare_ties", files[1:], base=files[0], out="a.safetensors", **options)
    pymerge.merge_files("dare_ties", pickled[1:], base=pickled[0], out="b.safetensors", **options)
    assert read(here / "a.safetensors") == read(here / "b.safetensors")
    with safe_open(here / "b.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("metadata", [METADATA, None, {"format": "pt"}])
def test_the_metadata_is_that_of_the_first_file(here: Path, metadata: dict[str, str] | None) -> None:
    first = write(here / "a.safetensors", MODELS[1], metadata)
    others = [write(here / f"{name}.safetensors", MODELS[2], {"other": name}) for name in "bc"]
    pymerge.merge_files(
        "ties", [first, others[0]], base=others[1], out="out.safetensors", parameters={"weight": 1, "density": 1}
    )
    with safe_open(here / "out.safetensors", "np") as file:
        assert (file.metadata() or None) == metadata


NAMES = st.sets(st.sampled_from(["a", "b", "blocks.0.w", "blocks.1.w", "lm_head.weight", "model.embed_tokens.weight"]))


@given(st.lists(NAMES, min_size=2, max_size=3), st.sampled_from(["linear", "ties"]))
@FEW
def test_names_that_not_all_files_have(tmp_path: Path, held: list[set[str]], method: str) -> None:
    random = np.random.default_rng(0)
    models = [{name: random.standard_normal((4, 3)).astype(np.float32) for name in sorted(names)} for names in held]
    paths = [write(tmp_path / f"{place}.safetensors", model) for place, model in enumerate(models)]
    based = method == "ties"
    options: dict[str, Any] = {"parameters": {"weight": 0.6, **({"density": 0.5} if based else {})}}
    everywhere, anywhere = set.intersection(*held), set.union(*held)
    out = tmp_path / "out.safetensors"

    def merge(keys: str) -> dict[str, Any]:
        base = paths[0] if based else None
        pymerge.merge_files(method, paths[based:], base=base, keys=keys, out=out, overwrite=True, **options)
        return read(out)

    def expect(models: list[dict[str, Any]]) -> dict[str, Any]:
        base = models[0] if based else None
        return content(pymerge.merge_state_dicts(method, models[based:], base=base, lenient=True, **options))

    if anywhere:
        assert merge("union") == expect(models)
    if everywhere:
        assert merge("intersection") == expect([{name: model[name] for name in everywhere} for model in models])
    if everywhere == anywhere:
        assert anywhere == set() or merge("same") == expect(models)
    else:
        with pytest.raises(ShapeError, match="of the tensors that others have") as caught:
            merge("same")
        lacking = next(names for names in held if names != anywhere)
        assert f"lacks {len(anywhere - lacking)} of" in str(caught.value)
        assert any(f'"{name}"' in str(caught.value) for name in anywhere - lacking)


def test_what_differs_is_told(here: Path) -> None:
    one = {name: np.ones(2, np.float32) for name in ("a", "b", "c", "d", "e")}
    paths = [write(here / "x.safetensors", one), write(here / "y.safetensors", {"e": one["e"]})]
    status, _, said = run("linear", *paths, "-o", "out.safetensors", "--weight", 1)
    assert status == 3
    assert '"a", "b", "c", ...' in said
    assert "--keys union" in said
    status, _, said = run("linear", *paths, "-o", "out.safetensors", "--weight", 1, "--keys", "intersection")
    assert (status, "4 tensors are not in all files and are left out" in said) == (0, True)
    status, _, said = run("linear", *paths, "-o", "2.safetensors", "--weight", 1, "--keys", "union")
    assert (status, "lacks 4 of the tensors" in said, "merged from the models that have them" in said) == (
        0,
        True,
        True,
    )


def test_the_command_line_gives_each_file_its_value(here: Path, files: list[str]) -> None:
    options = (
        "-o a.safetensors --weight 0.6,0.4 --set density=0.5 --set normalize=true --dtype bfloat16 --exclude embed"
    )
    status, shown, _ = run("ties", *files[1:3], "--base", files[0], *options.split())
    assert (status, shown) == (0, "a.safetensors\n")
    recipe = {
        "merge_method": "ties",
        "base_model": files[0],
        "models": [
            {"model": path, "parameters": {"weight": weight}}
            for path, weight in zip(files[1:], (0.6, 0.4), strict=False)
        ],
        "parameters": {"density": 0.5, "normalize": True},
        "dtype": "bfloat16",
        "exclude": ["embed"],
    }
    (here / "recipe.yml").write_text(json.dumps(recipe))
    assert run("recipe.yml", "-o", "b.safetensors", "--quiet") == (0, "", "")
    assert (here / "a.safetensors").read_bytes() == (here / "b.safetensors").read_bytes()
    assert read(here / "a.safetensors")["embed"][2] == MODELS[0]["embed"].astype(ml_dtypes.bfloat16).tobytes()


def test_a_dry_run_says_what_would_be_written_and_writes_nothing(here: Path, files: list[str]) -> None:
    status, shown, _ = run("linear", *files, "--weight", 1, "-o", "out.safetensors", "--dry-run", "--format", "json")
    assert (status, json.loads(shown)["merged"]) == (0, 8)
    assert not list(here.iterdir())


RECIPE = "merge_method: slerp\nbase_model: {0}\nmodels: [{{model: {1}}}]\n"


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ("linear", 2, "there is no file to merge"),
        ("linea {1} {2}", 2, 'did you mean "linear"?'),
        ("linear {1} gone.safetensors --weight 1", 2, 'model "gone.safetensors": there is no such file'),
        ("linear {1} . --weight 1", 2, "pymerge merge merges those"),
        ("linear {1} {2} --weight 1,2,3", 2, "weight has 3 values for 2 files"),
        ("linear {1} {2} --weight 1 --set weight=2", 2, "weight is given twice"),
        ("linear {1} {2} --set weight", 2, "is not NAME=VALUE"),
        ("linear {1} {2} --set weights=1", 2, 'did you mean "weight"?'),
        ("linear {1} {2}", 2, "linear: weight is missing"),
        ("ties {1} {2} --base {0} --weight 1 --set density=1.5", 2, "density = 1.5 must be in [0, 1]"),
        ("slerp {1} --base {0} --set t=0.2,0.3", 2, "t has 2 values for 1 files"),
        ("nuslerp {1} {2} --weight 1 --set nuslerp_flatten=1,0", 2, "is one value for all models"),
        ("ties {1} {2} --weight 1 --set density=1", 2, "ties needs a base_model"),
        ("linear {1} {2} --weight 1 --dtype int8", 2, 'dtype "int8" is not a type'),
        ("linear {1} {2} --weight 1 --exclude nothing --base {0}", 2, 'the filter "nothing"'),
        ("linear {1} {2} --weight 1 -o out.bin", 2, "name it out.safetensors"),
        ("linear {1} {2} --weight 1 -o there.safetensors", 2, "is there already"),
        ("linear {1} there.safetensors --weight 1 -o there.safetensors --overwrite", 2, "is the model"),
        ("linear {1} broken.safetensors --weight 1", 3, "broken.safetensors"),
        ("linear {1} quantized.safetensors --weight 1", 3, "the file is quantized (GPTQ or AWQ)"),
        ("recipe.yml {1}", 2, "files is given besides a recipe"),
        ("recipe.yml --set t=0.5", 2, "parameters is given besides a recipe"),
        ("gradient.yml", 2, "gradient.yml:4:"),
        ("slices.yml", 2, "slices are of layers, and single files have none"),
        ("revision.yml", 2, "a file has no revision"),
    ],
)
def test_what_cannot_work_is_refused_before_a_weight_is_read(
    here: Path, files: list[str], arguments: str, status: int, says: str
) -> None:
    (here / "broken.safetensors").write_bytes(b"12345678")
    write(here / "quantized.safetensors", {"x.qweight": np.ones(2, np.int32)})
    write(here / "there.safetensors", MODELS[0])
    recipe = RECIPE.format(*files)
    for name, more in (
        ("recipe", ""), ("gradient", "parameters: {t: [0, 1]}\n"), ("revision", "parameters: {t: 1}\n"),
    ):  # fmt: skip
        (here / f"{name}.yml").write_text((recipe if name != "revision" else recipe.replace(files[0], "x@y")) + more)
    (here / "slices.yml").write_text(
        f"merge_method: passthrough\nslices: [{{sources: [{{model: {files[0]}, layer_range: [0, 1]}}]}}]\n"
    )
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    words = arguments.format(*files).split()
    found, _, said = run(*words, *([] if "-o" in words else ["-o", "out.safetensors"]))
    assert (found, says in said) == (status, True), said
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before


def test_a_file_is_replaced_only_by_a_whole_one(here: Path, files: list[str]) -> None:
    out = Path(write(here / "out.safetensors", MODELS[0]))
    before = out.read_bytes()
    bad = write(here / "bad.safetensors", {**MODELS[1], "embed": np.full((331, 37), np.nan, np.float32)})
    status, _, said = run("linear", bad, files[2], "--weight", 1, "-o", out, "--overwrite")
    assert (status, "embed" in said) == (3, True)
    assert out.read_bytes() == before
    status, _, said = run("linear", *files[1:], "--weight", 1, "-o", out, "--overwrite")
    assert (status, "holds an unfinished merge that differs" in said) == (2, True)
    assert run("linear", *files[1:], "--weight", 1, "-o", out, "--overwrite", "--restart")[0] == 0
    assert out.read_bytes() != before
    assert {path.name for path in here.iterdir()} == {"out.safetensors", "bad.safetensors"}


def test_two_merges_into_one_file_do_not_mix(here: Path, files: list[str]) -> None:
    with claim(here, ".out.safetensors.journal"), pytest.raises(ResourceError, match="is in use"):
        pymerge.merge_files("karcher", files, out="out.safetensors")


def test_a_stopped_merge_goes_on_and_another_one_is_refused(
    here: Path, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path) -> None:
        raise ResourceError("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(single_file, "sync_folder", fail)
        with pytest.raises(ResourceError, match="the disk is gone"):
            pymerge.merge_files("karcher", files, out="out.safetensors")
    first = (here / "out.safetensors").read_bytes()
    with pytest.raises(RecipeError, match="holds an unfinished merge that differs"):
        pymerge.merge_files("karcher", files[1:], out="out.safetensors", overwrite=True)
    report = pymerge.merge_files("karcher", files, out="out.safetensors", overwrite=True)
    assert report.execution.kept > 0
    assert (here / "out.safetensors").read_bytes() == first
    assert [path.name for path in here.iterdir()] == ["out.safetensors"]


@pytest.mark.parametrize(
    ("keys", "error"), [("some", RecipeError), ("same", FormatError)], ids=["unknown keys", "a file that changed"]
)
def test_from_python_errors_are_those_of_merge(here: Path, keys: str, error: type[PymergeError]) -> None:
    (here / "x.safetensors").write_bytes(b"\x08" + bytes(15))
    with pytest.raises(error):
        pymerge.merge_files("passthrough", ["x.safetensors"], keys=keys, out="out.safetensors")


def test_integers_must_agree(here: Path) -> None:
    paths = [write(here / f"{n}.safetensors", {"step": np.array([n])}) for n in (1, 2)]
    with pytest.raises(DTypeError, match="step"):
        pymerge.merge_files("linear", paths, parameters={"weight": 1}, out="out.safetensors")
    paths[1] = write(here / "2.safetensors", {"step": np.array([1])})
    pymerge.merge_files("linear", paths, parameters={"weight": 1}, out="out.safetensors")
    assert read(here / "out.safetensors") == content({"step": np.array([1])})


def test_factors_of_adapters_are_merged_with_a_warning(here: Path) -> None:
    for name in ("a", "b"):
        save_file({"x.lora_A.weight": np.ones((2, 4), np.float32)}, here / f"{name}.safetensors")
    report = pymerge.merge_files(
        "linear", ["a.safetensors", "b.safetensors"], out="o.safetensors", parameters={"weight": 0.5}
    )
    assert any("does not merge their products" in str(warning) for warning in report.warnings)


def test_modules_of_files_are_refused(here: Path) -> None:
    recipe = {"merge_method": "linear", "modules": {"encoder": {"models": [{"model": "a.safetensors"}]}}}
    with pytest.raises(PymergeError, match="modules are parts of models"):
        pymerge.merge_files(recipe, out="o.safetensors")
