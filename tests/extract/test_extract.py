"""Adapters of small models: what is written, what is reported, and what a merge reads back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import pymerge

SHAPE = {"layers": 2, "width": 16, "vocabulary": 24}
Q, DOWN, NORM = (f"model.layers.{n}" for n in ("0.self_attn.q_proj", "1.mlp.down_proj", "0.input_layernorm"))
Tensors = dict[str, np.ndarray]


def write_base(here: Path, **changes: Any) -> Tensors:
    toys.write_llama(here / "base", **{**SHAPE, **changes})
    return dict(load_file(here / "base" / "model.safetensors"))


def write_tuned(here: Path, base: Tensors, changes: Tensors, **config: Any) -> Tensors:
    """The base with tensors replaced; those that are None are left out."""
    tensors = {name: tensor for name, tensor in {**base, **changes}.items() if tensor is not None}
    toys.write_checkpoint(here / "tuned", tensors, toys.llama_config(SHAPE["layers"], SHAPE["vocabulary"], **config))
    return tensors


def low_rank(base: np.ndarray, rank: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    rows, columns = base.shape
    product = random.standard_normal((rows, rank)) @ random.standard_normal((rank, columns))
    return (base + product).astype(base.dtype)


def extract(here: Path, **options: Any) -> tuple[Any, Tensors, dict[str, Any]]:
    """The report, the adapter's tensors without PEFT's prefix, its config."""
    report = pymerge.extract_lora(here / "tuned", here / "base", here / "lora", **options)
    tensors = {
        name.removeprefix("base_model.model."): tensor
        for name, tensor in load_file(here / "lora" / "adapter_model.safetensors").items()
    }
    return report, tensors, json.loads((here / "lora" / "adapter_config.json").read_text())


def read_back(here: Path) -> Tensors:
    """base+lora, merged with nothing, in float32."""
    model = {"model": f"{here / 'base'}+{here / 'lora'}", "parameters": {"weight": 1.0}}
    pymerge.merge({"merge_method": "linear", "models": [model], "dtype": "float32"}, here / "back")
    return dict(load_file(here / "back" / "model.safetensors"))


@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_a_difference_of_low_rank_comes_back_whole(tmp_path_factory: Any, data: st.DataObject) -> None:
    here = tmp_path_factory.mktemp("extract")
    base = write_base(here)
    ranks = {name: data.draw(st.integers(1, 4)) for name in (f"{Q}.weight", f"{DOWN}.weight")}
    embed = data.draw(st.booleans())
    if embed:
        ranks |= {"model.embed_tokens.weight": 2, "lm_head.weight": 3}
    changes = {name: low_rank(base[name], rank, seed) for seed, (name, rank) in enumerate(ranks.items())}
    tuned = write_tuned(here, base, {**changes, f"{NORM}.weight": base[f"{NORM}.weight"] + 1})
    method = data.draw(st.sampled_from(["exact", "randomized"]))
    report, tensors, config = extract(
        here,
        max_rank=8,
        embed_lora=embed,
        method=method,
        distribute_scale=data.draw(st.booleans()),
        energy=1 - 1e-9,
    )
    assert {each.module: each.rank for each in report.matrices} == {
        name.removesuffix(".weight"): rank for name, rank in ranks.items()
    }
    assert report.error < 1e-5
    assert report.whole == {NORM: "a vector"}
    assert config["modules_to_save"] == [NORM]
    assert set(config["target_modules"]) == {each.module for each in report.matrices}
    assert f"{NORM}.weight" in tensors
    back = read_back(here)
    for name, tensor in tuned.items():
        np.testing.assert_allclose(back[name], tensor, rtol=1e-4, atol=1e-4, err_msg=name)


@settings(max_examples=6, deadline=None)
@given(rank=st.integers(1, 8), dtype=st.sampled_from([None, "float32", "float16"]), wide=st.sampled_from([True, False]))
def test_the_reported_error_is_that_of_what_is_read_back(
    tmp_path_factory: Any, rank: int, dtype: str | None, wide: bool
) -> None:
    here = tmp_path_factory.mktemp("extract")
    base = write_base(here, dtype=np.float32 if wide else ml_dtypes.bfloat16)
    tuned = write_tuned(here, base, {f"{m}.weight": low_rank(base[f"{m}.weight"], 12) for m in (Q, DOWN)})
    report, tensors, _ = extract(here, max_rank=rank, dtype=dtype)
    stored = {tensor.dtype.name for tensor in tensors.values()}
    assert stored == {dtype or ("float32" if wide else "bfloat16")}
    back = read_back(here)
    squares = []
    for each in report.matrices:
        name = f"{each.module}.weight"
        delta = tuned[name].astype(np.float64) - base[name].astype(np.float64)
        missed = np.linalg.norm(back[name].astype(np.float64) - tuned[name].astype(np.float64))
        assert each.error == pytest.approx(missed / np.linalg.norm(delta), rel=1e-3, abs=1e-6)
        assert each.norm == pytest.approx(np.linalg.norm(delta), rel=1e-6)
        squares.append((missed**2, np.sum(delta**2)))
    missed, total = map(sum, zip(*squares, strict=True))
    assert report.error == pytest.approx(np.sqrt(missed / total), rel=1e-3, abs=1e-6)


def test_what_is_equal_is_left_out_and_told(here: Path) -> None:
    base = write_base(here)
    write_tuned(here, base, {f"{Q}.weight": low_rank(base[f"{Q}.weight"], 1)})
    report, tensors, config = extract(here)
    assert set(tensors) == {f"{Q}.lora_A.weight", f"{Q}.lora_B.weight"}
    assert config["target_modules"] == [Q]
    assert config["modules_to_save"] is None
    assert set(report.equal) | {Q} == {name.removesuffix(".weight") for name in base}


def test_ranks_that_differ_have_patterns_of_whole_names(here: Path) -> None:
    base = write_base(here)
    write_tuned(here, base, {f"{m}.weight": low_rank(base[f"{m}.weight"], r) for m, r in ((Q, 1), (DOWN, 3))})
    report, tensors, config = extract(here, energy=1 - 1e-9)
    assert (report.rank, config["r"], config["lora_alpha"]) == (3, 3, 3)
    assert config["rank_pattern"] == config["alpha_pattern"] == {Q: 1}
    assert tensors[f"{Q}.lora_A.weight"].shape == (1, 16)
    assert tensors[f"{DOWN}.lora_B.weight"].shape == (16, 3)


def test_embeddings_with_factors_are_transposed(here: Path) -> None:
    base = write_base(here)
    name = "model.embed_tokens.weight"
    write_tuned(here, base, {name: low_rank(base[name], 2)})
    _, tensors, _ = extract(here, embed_lora=True, max_rank=5, energy=1 - 1e-9)
    a, b = (tensors[f"model.embed_tokens.lora_embedding_{side}"] for side in "AB")
    assert (a.shape, b.shape) == ((2, 24), (16, 2))


@pytest.mark.parametrize(
    ("options", "factors", "whole", "left_out"),
    [
        ({}, {Q, DOWN}, {NORM, "lm_head"}, set()),
        ({"include": ["self_attn"]}, {Q}, {"lm_head"}, {DOWN, NORM}),
        ({"exclude": ["mlp", "lm_head"]}, {Q}, {NORM}, {DOWN, "lm_head"}),
        ({"save_modules": ["down_proj"]}, {Q}, {DOWN, NORM, "lm_head"}, set()),
        ({"save_modules": [DOWN], "skip_undecomposable": True}, {Q}, {DOWN, "lm_head"}, {NORM}),
        ({"embed_lora": True}, {Q, DOWN, "lm_head"}, {NORM}, set()),
        ({"sv_epsilon": 5.0}, {Q, "lm_head"}, set(), {DOWN}),
    ],
)
def test_which_module_becomes_what(
    here: Path, options: dict[str, Any], factors: set[str], whole: set[str], left_out: set[str]
) -> None:
    base = write_base(here)
    changed = {name: base[f"{name}.weight"] + 1 for name in (Q, NORM, "lm_head")}
    changed[DOWN] = base[f"{DOWN}.weight"] + np.eye(16, 48, dtype=np.float32)
    write_tuned(here, base, {f"{name}.weight": tensor for name, tensor in changed.items()})
    report, _, config = extract(here, **options)
    if "sv_epsilon" in options:
        whole, factors = {NORM, "lm_head"}, {Q}
    assert {each.module for each in report.matrices} == factors
    assert set(report.whole) == whole
    assert set(config["modules_to_save"]) == whole
    assert left_out <= set(report.left_out)


def test_a_head_of_its_own_stands_beside_a_tied_base(here: Path) -> None:
    base = write_base(here, head=False, config={"tie_word_embeddings": True})
    changes = {f"{Q}.weight": low_rank(base[f"{Q}.weight"], 1), "lm_head.weight": base["model.embed_tokens.weight"] + 1}
    tuned = write_tuned(here, base, changes)
    report, _, _ = extract(here)
    assert report.whole == {"lm_head": "the output head"}
    np.testing.assert_array_equal(read_back(here)["lm_head.weight"], tuned["lm_head.weight"])


def test_a_tied_embedding_is_stored_as_both(here: Path) -> None:
    base = write_base(here, head=False, config={"tie_word_embeddings": True})
    name = "model.embed_tokens.weight"
    tuned = write_tuned(
        here, base, {f"{Q}.weight": low_rank(base[f"{Q}.weight"], 1), name: base[name] + 1}, tie_word_embeddings=True
    )
    report, tensors, config = extract(here, embed_lora=True)
    assert config["modules_to_save"] == ["model.embed_tokens", "lm_head"]
    for stored in (name, "lm_head.weight"):
        np.testing.assert_array_equal(tensors[stored], tuned[name])
    assert any("--embed-lora has no effect" in warning for warning in report.warnings)


def test_a_model_whose_head_became_its_embedding_gets_that_for_a_head(here: Path) -> None:
    base = write_base(here)
    changes: dict[str, Any] = {f"{Q}.weight": low_rank(base[f"{Q}.weight"], 1), "lm_head.weight": None}
    write_tuned(here, base, changes, tie_word_embeddings=True)
    report, tensors, _ = extract(here)
    assert set(report.whole) == {"lm_head"}
    np.testing.assert_array_equal(tensors["lm_head.weight"], base["model.embed_tokens.weight"])


def test_more_rows_are_stored_whole_and_told(here: Path) -> None:
    base = write_base(here)
    names = ("model.embed_tokens.weight", "lm_head.weight")
    grown = {name: np.concatenate([base[name], np.ones((3, 16), np.float32)]) for name in names}
    write_tuned(here, base, {f"{Q}.weight": low_rank(base[f"{Q}.weight"], 1), **grown}, vocab_size=27)
    report, _, _ = extract(here, embed_lora=True)
    assert set(report.whole) == {"model.embed_tokens", "lm_head"}
    assert sum("resize_token_embeddings(27)" in warning for warning in report.warnings) == 2
    np.testing.assert_array_equal(read_back(here)["lm_head.weight"], grown["lm_head.weight"])
    assert json.loads((here / "back" / "config.json").read_text())["vocab_size"] == 27


def test_threads_change_no_byte(here: Path) -> None:
    base = write_base(here)
    write_tuned(here, base, {name: tensor + 1 for name, tensor in low_ranks(base).items()})
    one, four = (
        pymerge.extract_lora("tuned", "base", f"lora{n}", max_rank=4, method="randomized", threads=n) for n in (1, 4)
    )
    assert (one.error, len(one.matrices)) == (four.error, len(four.matrices))
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (here / "lora1" / name).read_bytes() == (here / "lora4" / name).read_bytes()


def low_ranks(base: Tensors) -> Tensors:
    return {name: low_rank(tensor, 2) for name, tensor in base.items() if tensor.ndim == 2}


def test_sources_of_every_kind_are_read(here: Path) -> None:
    """An adapter of base+adapter: what the first one adds is part of the difference."""
    base = write_base(here, dtype=ml_dtypes.bfloat16)
    write_tuned(here, base, {f"{Q}.weight": low_rank(base[f"{Q}.weight"].astype(np.float32), 2)})
    extract(here, dtype="float32", energy=1 - 1e-6)
    again = pymerge.extract_lora("base+lora", "base", "again", dtype="float32", energy=1 - 1e-6)
    assert [(each.module, each.rank) for each in again.matrices] == [(Q, 2)]
    assert again.error < 1e-5
    on_top = pymerge.extract_lora("tuned", "base+lora", "top", dtype="float32", sv_epsilon=1e-6)
    assert any("cannot say" in warning for warning in on_top.warnings)


@pytest.mark.parametrize("other", [True, False])
def test_a_tokenizer_comes_along_if_it_is_another_one(here: Path, other: bool) -> None:
    base = write_base(here)
    write_tuned(here, base, {f"{Q}.weight": low_rank(base[f"{Q}.weight"], 1)})
    (here / "base" / "tokenizer.json").write_text("{}")
    (here / "tuned" / "tokenizer.json").write_text('{"a": 1}' if other else "{}")
    report, _, _ = extract(here)
    assert report.extras == (("tokenizer.json",) if other else ())
    assert (here / "lora" / "tokenizer.json").exists() == other


def test_the_card_quotes_names_without_meaning(here: Path) -> None:
    base = write_base(here)
    write_tuned(here, base, {f"{Q}.weight": low_rank(base[f"{Q}.weight"], 1)})
    (here / "tuned").rename(here / "tu*n`e<d>")
    pymerge.extract_lora("tu*n`e<d>", "base", "lora", max_rank=3)
    card = (here / "lora" / "README.md").read_text()
    assert r"tu\*n\`e\<d\>" in card
    assert "    pymerge extract-lora --model 'tu*n`e<d>' --base-model base --max-rank 3\n" in card


def test_weights_are_a_file_that_safetensors_takes(here: Path) -> None:
    base = write_base(here)
    write_tuned(here, base, {f"{Q}.weight": low_rank(base[f"{Q}.weight"], 1)})
    extract(here)
    from safetensors import safe_open

    with safe_open(here / "lora" / "adapter_model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}


def test_pickled_models_are_read(here: Path) -> None:
    import torch

    base = write_base(here)
    tuned = write_tuned(here, base, {f"{Q}.weight": low_rank(base[f"{Q}.weight"], 1)})
    torch.save({name: torch.from_numpy(tensor) for name, tensor in tuned.items()}, here / "tuned" / "pytorch_model.bin")
    (here / "tuned" / "model.safetensors").unlink()
    report, _, _ = extract(here)
    assert [each.module for each in report.matrices] == [Q]


def test_biases_of_layers_are_stored_beside_their_factors(here: Path) -> None:
    biases = {f"{Q}.bias": np.zeros(16, np.float32), f"{DOWN}.bias": np.zeros(16, np.float32)}
    base = write_base(here, extra=biases)
    changes = {f"{Q}.weight": low_rank(base[f"{Q}.weight"], 1), **{name: bias + 1 for name, bias in biases.items()}}
    tuned = write_tuned(here, base, changes)
    _, tensors, config = extract(here)
    assert {name for name in tensors if "bias" in name} == {f"{Q}.base_layer.bias", f"{DOWN}.bias"}
    assert config["bias"] == "all"
    back = read_back(here)
    for name in biases:
        np.testing.assert_array_equal(back[name], tuned[name])


def test_an_adapter_is_replaced_only_where_that_is_asked_for(here: Path) -> None:
    base = write_base(here)
    write_tuned(here, base, {f"{Q}.weight": low_rank(base[f"{Q}.weight"], 1)})
    extract(here)
    save_file({}, here / "lora" / "adapter_model.bin")
    with pytest.raises(pymerge.PymergeError, match="--overwrite"):
        extract(here)
    report, _, _ = extract(here, overwrite=True, max_rank=1)
    assert report.rank == 1
    assert not (here / "lora" / "adapter_model.bin").exists()


def test_a_gguf_file_is_a_base_like_others(toy: Any, here: Path) -> None:
    from gguf_toys import write_gguf

    folder = toy("llama")
    write_gguf(folder, here / "base.gguf")
    tensors = {
        name: tensor.astype(np.float32) + (name == f"{Q}.weight")
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    toys.write_checkpoint(here / "tuned", tensors, json.loads((folder / "config.json").read_text()))
    report = pymerge.extract_lora("tuned", "base.gguf", "lora", energy=1 - 1e-6)
    assert [(each.module, each.rank) for each in report.matrices] == [(Q, 1)]
    assert not report.whole
