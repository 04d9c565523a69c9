"""Tokenizer files of strangers: whatever they hold is used or refused; nothing else is raised, nothing is loaded."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vocabulary.making import END, bpe, make, unigram, write_model

from pymerge.config import ModelRef, load_recipe
from pymerge.errors import FormatError, PymergeError
from pymerge.vocabulary import make_vocabulary

WORDS = st.sampled_from(["", "a", "ab", END, "BPE", "Unigram", "\ud800", "id", "content", "default"])
VALUES = st.recursive(
    st.one_of(WORDS, st.none(), st.booleans(), st.integers(-1, 40), st.just(1 << 40), st.floats()),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(WORDS, inner, max_size=2)),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models a, u and x; x changes its files all the time."""
    made = tmp_path_factory.mktemp("models")
    write_model(made / "a", bpe(), added=(END, "<x>"))
    write_model(made / "u", unigram({"a": -1.0}))
    write_model(made / "x", bpe())
    return made


def replace_somewhere(value: Any, path: list[int], new: Any) -> Any:
    """A copy of a JSON value in which what the numbers lead to is replaced."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not path or not keys:
        return new
    key = keys[path[0] % len(keys)]
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[key] = replace_somewhere(value[key], path[1:], new)
    return changed


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from("au"),
    name=st.sampled_from(["tokenizer.json", "tokenizer_config.json", "config.json", "special_tokens_map.json"]),
    path=st.lists(st.integers(0, 40), max_size=5),
    new=VALUES,
    text=st.sampled_from(
        ["tokenizer_source: union", "tokenizer_source: x", "tokenizer: {tokens: {ab: {force: true}}}"]
    ),
)
def test_any_change_is_used_or_refused(
    folder: Path, kind: str, name: str, path: list[int], new: Any, text: str
) -> None:
    config = {"eos_token_id": 13, "added_tokens_decoder": {"14": {"content": "<y>"}}}
    for file in ("tokenizer.json", "tokenizer_config.json", "config.json", "special_tokens_map.json"):
        source = folder / kind / file
        value = json.loads(source.read_text()) if source.exists() else {"pad_token": "<p>"}
        value = {**value, **config} if file.endswith("config.json") else value
        changed = replace_somewhere(value, path, new) if file == name else value
        (folder / "x" / file).write_text(json.dumps(changed))
    with contextlib.suppress(PymergeError):
        make(folder, {"x": 18, kind: 18}, text.replace("source: x", "source: base"))
    with contextlib.suppress(PymergeError):
        make(folder, {kind: 18, "x": 12}, text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}}, 'gives the id 0 to "a" and to "b"'),
        ({"model": {"type": "BPE", "vocab": {"a": 1 << 40}, "merges": []}}, 'gives "a" the id 1099511627776'),
        ({"model": {"type": "Unigram", "vocab": [["a", 0], ["b"]]}}, "entry 1 of model.vocab"),
        ({"model": {"type": "BPE"}}, "model.vocab is missing"),
        ({"added_tokens": [{"id": 13}]}, "an added token without content"),
    ],
)
def test_damaged_tokenizers_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_model(tmp_path / "a", bpe())
    path = write_model(tmp_path / "b", bpe()) / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(FormatError, match=message):
        make(tmp_path, {"a": 14, "b": 14}, "tokenizer_source: union")


def test_a_tokenizer_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("{}")
    write_model(tmp_path / "a", None)
    os.symlink(secret, tmp_path / "a" / "tokenizer.json")
    with pytest.raises(FormatError, match="is a link to"):
        make(tmp_path, {"a": 14}, "tokenizer_source: base")


def test_a_recipe_without_settings_reads_no_file(tmp_path: Path) -> None:
    config = load_recipe("merge_method: linear\nmodels: [{model: a}]\n")
    assert make_vocabulary(config, {ModelRef("a"): tmp_path / "absent"}, {}) is None


def test_no_tokenizer_library_is_loaded(tmp_path: Path) -> None:
    for name in "ab":
        write_model(tmp_path / name, bpe(order=list(range(13)) if name == "a" else list(range(12, -1, -1))))
    code = (
        "import sys; from pathlib import Path\n"
        "from pymerge.config import ModelRef, load_recipe\n"
        "from pymerge.vocabulary import make_vocabulary\n"
        "refs = {ModelRef(name): Path(sys.argv[1], name) for name in 'ab'}\n"
        "recipe = 'merge_method: linear\\nmodels: [{model: a}, {model: b}]\\ntokenizer_source: union\\n'\n"
        "assert make_vocabulary(load_recipe(recipe), refs, dict.fromkeys(refs, 14)).choices\n"
        "assert not {'tokenizers', 'transformers', 'numpy', 'torch', 'jinja2'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
