"""Recipes of several stages in one pass: the numbers of running them by hand in float32, nothing stored between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import toys
import yaml
from safetensors.numpy import load_file
from verify.outputs import messages

import pymerge
from pymerge.errors import RecipeError

NAMES = ("base", "math", "code", "chat")


def write_models(here: Path, **changes: Any) -> None:
    for seed, name in enumerate(NAMES):
        toys.write_llama(here / name, seed=seed, **{"dtype": ml_dtypes.bfloat16, "layers": 3, **changes})


def write(*documents: dict[str, Any]) -> str:
    return "\n---\n".join(yaml.safe_dump(document, sort_keys=False) for document in documents)


def read(folder: Path | str) -> dict[str, bytes]:
    return {name: tensor.tobytes() for name, tensor in load_file(Path(folder) / "model.safetensors").items()}


def by_hand(documents: list[dict[str, Any]], out: str) -> dict[str, bytes]:
    """Each stage into a folder of its name, in float32; the last into `out`."""
    for document in documents[:-1]:
        pymerge.merge({**document, "out_dtype": "float32"}, document["name"])
    pymerge.merge(documents[-1], out)
    return read(out)


TIES = {
    "name": "tuned",
    "merge_method": "ties",
    "base_model": "base",
    "models": [{"model": name, "parameters": {"weight": 0.5, "density": 0.4}} for name in ("math", "code")],
    "dtype": "bfloat16",
}
DARE = {
    "name": "dropped",
    "merge_method": "dare_ties",
    "base_model": "base",
    "models": [{"model": name, "parameters": {"weight": 0.7, "density": 0.6}} for name in ("code", "chat")],
    "parameters": {"rescale": "l2"},
    "dtype": "bfloat16",
}
STACKED = {
    "name": "deep",
    "merge_method": "passthrough",
    "slices": [{"sources": [{"model": m, "layer_range": r}]} for m, r in (("math", [0, 2]), ("code", [1, 3]))],
    "dtype": "bfloat16",
}
SLERP = {
    "name": "turned",
    "merge_method": "slerp",
    "base_model": "tuned",
    "models": [{"model": "tuned"}, {"model": "dropped"}],
    "parameters": {"t": [0.2, 0.7]},
    "dtype": "bfloat16",
}
FINAL_DELLA = {
    "merge_method": "della",
    "base_model": "turned",
    "models": [{"model": "tuned", "parameters": {"weight": 0.5, "density": 0.5, "epsilon": 0.1}}],
    "dtype": "bfloat16",
}
TWICE = {
    "name": "twice",
    "merge_method": "slerp",
    "base_model": "chat",
    "slices": [{"sources": [{"model": m, "layer_range": r} for m in ("tuned", "chat")]} for r in ([0, 2], [1, 3])],
    "parameters": {"t": 0.3},
    "dtype": "bfloat16",
}
CHAINS = {
    "two": [TIES, DARE, {**{k: v for k, v in SLERP.items() if k != "name"}}],
    "three": [TIES, DARE, SLERP, FINAL_DELLA],
    "karcher": [
        TIES,
        DARE,
        {"merge_method": "karcher", "models": [{"model": "tuned"}, {"model": "dropped"}], "dtype": "bfloat16"},
    ],
    "stacked": [
        STACKED,
        {**STACKED, "name": "other", "slices": [{"sources": [{"model": "chat", "layer_range": [0, 2]}]}] * 2},
        {
            "merge_method": "linear",
            "models": [{"model": name, "parameters": {"weight": 0.5}} for name in ("deep", "other")],
            "dtype": "bfloat16",
        },
    ],
    # Two layers of the result read one of "tuned", which both have to measure.
    "overlapping": [TIES, {k: v for k, v in TWICE.items() if k != "name"}],
    "overlapping inside": [
        TIES,
        TWICE,
        STACKED,
        {"merge_method": "karcher", "models": [{"model": "twice"}, {"model": "deep"}], "dtype": "bfloat16"},
    ],
}


@pytest.mark.parametrize("name", CHAINS)
def test_stages_give_the_numbers_of_running_them_by_hand(name: str, here: Path) -> None:
    write_models(here)
    documents = CHAINS[name]
    # In any order in the file.
    recipe = write(documents[-1], *documents[-2::-1])
    for backend, threads in (("cpu", 1), ("cpu", 3), ("reference", 1)):
        pymerge.merge(recipe, f"{backend}{threads}", backend=backend, threads=threads)
    assert not [path for path in here.iterdir() if path.name in {d.get("name") for d in documents}]
    expected = by_hand(documents, "hand")
    assert read("cpu1") == read("cpu3") == read("reference1") == expected
    assert json.loads(Path("cpu1/config.json").read_text()) == json.loads(Path("hand/config.json").read_text())
    assert pymerge.verify("cpu1", sample=None).status.value == "passed"
    inputs = json.loads(Path("cpu1/pymerge_manifest.json").read_text())["inputs"]
    assert {each["model"] for each in inputs} <= set(NAMES)


@pytest.mark.parametrize("method", ["slerp", "nuslerp", "karcher"])
def test_a_tied_stage_is_embedding_and_head_of_an_untied_merge(method: str, here: Path) -> None:
    tied = {"head": False, "config": {"tie_word_embeddings": True}}
    for seed, (name, changes) in enumerate({"a": tied, "b": tied, "c": {}}.items()):
        toys.write_llama(here / name, seed=seed, **changes)
    one = {"name": "one", "merge_method": "linear", "models": [{"model": "a"}, {"model": "b"}]}
    one |= {"parameters": {"weight": 1}, "dtype": "float32"}
    last = {"merge_method": method, "models": [{"model": "one"}, {"model": "c"}], "dtype": "float32"}
    last |= {"slerp": {"base_model": "one", "parameters": {"t": 0.3}}, "nuslerp": {"parameters": {"weight": 1}}}.get(
        method, {}
    )
    pymerge.merge(write(one, last), "out", threads=1)
    assert read("out") == by_hand([one, last], "hand")


def test_a_small_budget_gives_the_same_bytes(here: Path) -> None:
    write_models(here, width=256, vocabulary=2000)
    recipe = write(*CHAINS["three"])
    pymerge.merge(recipe, "ample", memory=1 << 30)
    pymerge.merge(recipe, "scarce", memory=96 << 20, threads=1)
    assert read("ample") == read("scarce")


def test_layers_that_are_only_stacked_stay_the_files_own_bytes(here: Path) -> None:
    write_models(here)
    recipe = write(STACKED, {"merge_method": "passthrough", "models": [{"model": "deep"}], "dtype": "bfloat16"})
    for task in pymerge.plan(recipe).tasks:
        assert task.sources[0].parts == ()


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        ([{**TIES, "name": "a"}, {**TIES, "name": "a"}, SLERP], 'two stages are called "a"'),
        ([{k: v for k, v in TIES.items() if k != "name"}] * 2, "two documents have no name"),
        ([TIES, DARE], "2 stages are used by no other: which is the result"),
        ([{**TIES, "models": [{"model": "turned"}]}, DARE, SLERP, FINAL_DELLA], "stages need each other"),
        ([TIES, DARE, {**FINAL_DELLA, "base_model": "tuned"}], '"dropped" is not used by the result'),
        ([{**TIES, "merge_method": "tis"}, {**FINAL_DELLA, "base_model": "tuned"}], 'there is no merge method "tis"'),
    ],
)
def test_what_is_no_chain_is_refused(documents: list[dict[str, Any]], said: str, here: Path) -> None:
    write_models(here)
    with pytest.raises(RecipeError, match=said):
        pymerge.plan(write(*documents))


TRIMMED = {**TIES, "name": "trimmed", "parameters": {"trim_scope": "global"}}
LAST = {**FINAL_DELLA, "base_model": "dropped", "models": [{**FINAL_DELLA["models"][0], "model": "trimmed"}]}
APART = [TRIMMED, DARE, LAST]


def test_a_stage_that_looks_at_many_tensors_is_merged_by_itself_and_goes(here: Path) -> None:
    write_models(here)
    recipe = write(*APART)
    assert pymerge.plan(recipe).separate == ("trimmed",)
    pymerge.merge(recipe, "out")
    assert {path.name for path in here.iterdir()} == {*NAMES, "out"}
    assert read("out") == by_hand(APART, "hand")


def test_stages_that_are_kept_are_models(here: Path) -> None:
    write_models(here)
    recipe = write(*CHAINS["two"])
    pymerge.merge(recipe, "out", keep_stages=True)
    for name in ("tuned", "dropped"):
        assert pymerge.verify(f"out.stages/{name}", sample=None).status.value == "passed"
    assert read("out") == by_hand(CHAINS["two"], "hand")


def without_types(*documents: dict[str, Any]) -> str:
    return write(*({key: value for key, value in each.items() if key != "dtype"} for each in documents))


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("name", ["three", "apart", "chain"])
def test_a_result_has_the_type_that_the_plan_says_however_its_stages_are_made(
    name: str, keep: bool, dtype: Any, here: Path
) -> None:
    write_models(here, dtype=dtype, config={"torch_dtype": np.dtype(dtype).name})
    # Of a chain, every stage looks at many tensors, and reads one that does.
    again = {**TRIMMED, "name": "again", "base_model": "trimmed"}
    end = {**TRIMMED, "name": "end", "base_model": "again", "merge_method": "dare_linear"}
    end["parameters"] = {"weight": 1.0}
    documents = {"apart": APART, "chain": [TRIMMED, again, end], **CHAINS}[name]
    recipe = without_types(*documents)
    planned = pymerge.plan(recipe)
    assert {task.dtype.name for task in planned.tasks} == {np.dtype(dtype).name}
    pymerge.merge(recipe, "out", keep_stages=keep)
    assert json.loads(Path("out/config.json").read_text()) == planned.model_config
    assert {tensor.dtype for tensor in load_file("out/model.safetensors").values()} == {np.dtype(dtype)}
    assert messages(pymerge.verify("out", sample=None), "recomputed") == ""


def test_keeping_stages_changes_no_byte(here: Path) -> None:
    write_models(here)
    for name in ("two", "three"):
        recipe = without_types(*CHAINS[name])
        pymerge.merge(recipe, f"{name}-kept", keep_stages=True)
        pymerge.merge(recipe, name)
        assert read(name) == read(f"{name}-kept")


def test_a_stage_that_is_whole_is_not_merged_again(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pymerge.api

    write_models(here)
    recipe = write(*APART)
    execute = pymerge.api.execute
    merged: list[str] = []

    def stop_at_the_last(schedule: Any, folder: Path, **options: Any) -> Any:
        merged.append(folder.name)
        if folder.name == "out" and len(merged) == 2:
            raise KeyboardInterrupt
        return execute(schedule, folder, **options)

    monkeypatch.setattr(pymerge.api, "execute", stop_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        pymerge.merge(recipe, "out")
    pymerge.merge(recipe, "out")
    assert merged == ["trimmed", "out", "out"]
    assert read("out") == by_hand(APART, "hand")


def test_mistakes_in_the_methods_of_all_documents_are_told_at_once(here: Path) -> None:
    write_models(here)
    recipe = write({**TIES, "merge_method": "tis"}, {**FINAL_DELLA, "base_model": "tuned", "merge_method": "dela"})
    with pytest.raises(RecipeError) as caught:
        pymerge.plan(recipe)
    assert [problem.hint for problem in caught.value.problems] == ['did you mean "ties"?', 'did you mean "della"?']


def test_the_card_names_stages_as_such(here: Path) -> None:
    write_models(here)
    pymerge.merge(write(*CHAINS["two"]), "out")
    card = Path("out/README.md").read_text()
    assert "Made in 3 stages" in card
    assert "Base model: `tuned`" not in card
