"""Models of different vocabularies, merged: rows follow their tokens, and what is written fits together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import pytest
import tokenizers
import toys
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from vocabulary.making import ALPHABET, END, MERGES, bpe, write_model

import pymerge
from pymerge.errors import PymergeError, RecipeError

#: Entries of `bpe()`, and with its end token.
ENTRIES = len(ALPHABET) + len(MERGES)
TOKENS = ENTRIES + 1
ALONG = ("model.embed_tokens.weight", "lm_head.weight")


def write(folder: Path, tokenizer: tokenizers.Tokenizer, rows: int, *, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """A toy model with a tokenizer; its tensors."""
    more = {key: changes.pop(key) for key in ("added", "settings", "generation") if key in changes}
    write_model(folder, tokenizer, **more)
    shape = {"hidden_size": 8, "intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 2}
    more = {"layers": 2, "vocabulary": rows, "width": 8, "dtype": ml_dtypes.bfloat16, "config": shape}
    toys.write_llama(folder, seed=seed, **more, **changes)
    return dict(load_file(folder / "model.safetensors"))


def merge(out: str, recipe: dict[str, Any], **options: Any) -> dict[str, Any]:
    pymerge.merge({"dtype": "bfloat16", **recipe}, out, **options)
    return dict(load_file(Path(out) / "model.safetensors"))


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return left.keys() == right.keys() and all(left[k].tobytes() == right[k].tobytes() for k in left)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(ENTRIES)), method=st.sampled_from(["linear", "slerp", "karcher"]))
def test_a_model_whose_ids_were_shuffled_merges_with_its_original_to_the_original(
    tmp_path_factory: Any, order: list[int], method: str
) -> None:
    here = tmp_path_factory.mktemp("shuffled")
    original = write(here / "a", bpe(), TOKENS)
    write_model(here / "b", bpe(order=order))
    moved = dict(original)
    for name in ALONG:
        moved[name] = original[name].copy()
        moved[name][order] = original[name][:ENTRIES]
    save_file(moved, here / "b" / "model.safetensors")
    (here / "b" / "config.json").write_bytes((here / "a" / "config.json").read_bytes())
    parameters = {"linear": {"weight": 0.5}, "slerp": {"t": 0.5}, "karcher": {}}[method]
    models = [{"model": str(here / name)} for name in "ab"]
    recipe = {"merge_method": method, "models": models, "parameters": parameters, "tokenizer_source": "union"}
    if method == "slerp":
        recipe["base_model"] = str(here / "a")
    assert same(merge(str(here / "out"), recipe), original)


def write_three(here: Path) -> None:
    """A base, a model with two tokens more and padding, one that lacks an entry and has other tokens."""
    write(here / "base", bpe(), TOKENS, generation={"eos_token_id": ENTRIES})
    write(here / "chat", bpe(), TOKENS + 9, seed=1, added=(END, "<a>", "<b>"), generation={"eos_token_id": TOKENS})
    write(here / "code", bpe(MERGES[:3]), TOKENS + 1, seed=2, added=(END, "<b>"))


MODELS = [{"model": name, "parameters": {"weight": 0.5, "density": 0.6}} for name in ("chat", "code")]


@pytest.mark.parametrize("method", ["ties", "dare_ties", "model_stock", "linear"])
def test_backends_agree_on_rows_that_were_put_together(method: str, here: Path) -> None:
    write_three(here)
    models = MODELS if method != "model_stock" else [{"model": "chat"}, {"model": "code"}]
    if method == "linear":
        models = [{"model": "base", "parameters": {"weight": 1}}, *({**m, "parameters": {"weight": 1}} for m in MODELS)]
    recipe = {"merge_method": method, "base_model": "base", "models": models, "tokenizer_source": "union"}
    if method == "linear":
        del recipe["base_model"]
    made = [merge(f"{b}{n}", recipe, backend=b, threads=n) for b, n in (("cpu", 1), ("cpu", 3), ("reference", 1))]
    assert same(made[0], made[1])
    assert same(made[0], made[2])
    assert pymerge.verify("cpu3", sample=None).status.value == "passed"


def test_what_is_written_fits_together(here: Path) -> None:
    import transformers

    write_three(here)
    recipe = {
        "merge_method": "ties",
        "base_model": "base",
        "models": MODELS,
        "tokenizer": {"source": "union", "pad_to_multiple_of": 8},
        "chat_template": "chatml",
    }
    tensors = merge("out", recipe)
    rows = tensors[ALONG[0]].shape[0]
    assert rows == -(-(TOKENS + 2) // 8) * 8
    assert tensors[ALONG[1]].shape[0] == rows
    assert json.loads(Path("out/config.json").read_text())["vocab_size"] == rows
    told = json.loads(Path("out/pymerge_manifest.json").read_text())["vocabulary"]
    assert (told["rows"], told["tokens"]) == (rows, TOKENS + 2)
    assert set(told["added"]) >= {"<a>", "<b>"}
    tokenizer = transformers.AutoTokenizer.from_pretrained("out")
    assert len(tokenizer) == TOKENS + 2
    assert "<|im_start|>" in tokenizer.chat_template
    model, info = transformers.AutoModelForCausalLM.from_pretrained("out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.get_input_embeddings().weight.shape[0] == rows
    warnings = pymerge.plan(recipe).warnings
    assert any("<a>" in str(warning) for warning in warnings)


def test_a_head_that_only_some_have_gets_its_rows_from_embeddings(here: Path) -> None:
    write(here / "base", bpe(), TOKENS, head=False)
    chat = write(here / "chat", bpe(), TOKENS + 1, seed=1, added=(END, "<a>"))
    recipe = {
        "merge_method": "linear",
        "models": [{"model": name, "parameters": {"weight": 0.5}} for name in ("base", "chat")],
        "base_model": "base",
        "tokenizer_source": "union",
    }
    tensors = merge("out", recipe)
    assert (tensors["lm_head.weight"][TOKENS] == chat["lm_head.weight"][TOKENS]).all()
    assert (tensors[ALONG[0]][TOKENS] == chat[ALONG[0]][TOKENS]).all()
    assert json.loads(Path("out/config.json").read_text())["tie_word_embeddings"] is False


def test_stacked_layers_keep_the_tokenizer_that_was_asked_for(here: Path) -> None:
    write_three(here)
    stacked = [{"sources": [{"model": name, "layer_range": [0, 1]}]} for name in ("base", "chat")]
    recipe = {"merge_method": "passthrough", "slices": stacked, "tokenizer_source": "chat"}
    tensors = merge("out", recipe)
    chat = load_file("chat/model.safetensors")
    assert tensors[ALONG[1]].tobytes() == chat[ALONG[1]].tobytes()
    assert tensors[ALONG[0]].shape == chat[ALONG[0]].shape
    assert Path("out/tokenizer.json").read_bytes() == Path("chat/tokenizer.json").read_bytes()


def test_equal_tokenizers_cost_nothing(here: Path) -> None:
    write(here / "a", bpe(), TOKENS)
    write(here / "b", bpe(), TOKENS, seed=1)
    recipe: dict[str, Any] = {
        "merge_method": "linear",
        "models": [{"model": m} for m in "ab"],
        "parameters": {"weight": 1},
    }
    plain, union = pymerge.plan(recipe), pymerge.plan({**recipe, "tokenizer_source": "union"})
    assert [task.sources for task in plain.tasks] == [task.sources for task in union.tasks]


def test_generation_follows_the_tokens(here: Path) -> None:
    write(here / "a", bpe(), TOKENS, generation={"eos_token_id": ENTRIES, "temperature": 0.5})
    turned = [*range(1, ENTRIES), 0]
    write(here / "b", bpe(order=turned), TOKENS + 1, seed=1, added=("<x>", END), generation={"eos_token_id": TOKENS})
    recipe = {
        "merge_method": "linear",
        "models": [{"model": m, "parameters": {"weight": 1}} for m in "ab"],
        "tokenizer_source": "b",
    }
    merge("out", recipe)
    assert json.loads(Path("out/generation_config.json").read_text()) == {"eos_token_id": TOKENS, "temperature": 0.5}


def test_different_vocabularies_without_a_setting_are_refused_with_the_setting(here: Path) -> None:
    write_three(here)
    with pytest.raises(PymergeError, match="tokenizer_source: union"):
        pymerge.plan({"merge_method": "ties", "base_model": "base", "models": MODELS})


def test_every_stage_may_make_a_vocabulary(here: Path) -> None:
    write_three(here)
    first = {
        "name": "first",
        "merge_method": "linear",
        "models": [{"model": name, "parameters": {"weight": 1}} for name in ("base", "chat")],
        "tokenizer": {"source": "union"},
        "dtype": "bfloat16",
    }
    last = {
        "merge_method": "slerp",
        "base_model": "first",
        "models": [{"model": "code"}],
        "parameters": {"t": 0.5},
        "tokenizer_source": "union",
        "chat_template": "chatml",
        "dtype": "bfloat16",
    }
    recipe = "\n---\n".join(yaml.safe_dump(document) for document in (first, last))
    pymerge.merge(recipe, "out")
    pymerge.merge({**first, "out_dtype": "float32"}, "first")
    pymerge.merge(last, "hand")
    assert same(dict(load_file("out/model.safetensors")), dict(load_file("hand/model.safetensors")))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "config.json"):
        assert json.loads((here / "out" / name).read_text()) == json.loads((here / "hand" / name).read_text()), name


def test_a_tokenizer_model_that_is_not_there_is_the_one_problem(here: Path) -> None:
    write_three(here)
    models = [{"model": "base", "parameters": {"weight": 1}}]
    with pytest.raises(RecipeError) as caught:
        pymerge.plan({"merge_method": "linear", "models": models, "tokenizer_source": "unon"})
    (problem,) = caught.value.problems
    assert "no such folder" in problem.message


def test_a_mistake_in_tokenizer_is_told_alone(here: Path) -> None:
    # Without the vocabulary that it asks for, shapes differ; to say so would send the reader elsewhere.
    write_three(here)
    recipe = {
        "merge_method": "linear",
        "models": [{"model": name, "parameters": {"weight": 1}} for name in ("base", "chat")],
        "tokenizer": {"source": "union", "tokens": {"<new>": {"source": "code"}}},
    }
    with pytest.raises(RecipeError) as caught:
        pymerge.plan(recipe)
    assert '"code" has no row for "<new>"' in str(caught.value)
    assert "shape" not in str(caught.value)
