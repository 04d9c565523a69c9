"""Architectures inferred from names and config.json, on real families and on awkward ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toys

from pymerge.checkpoint import Architecture, infer_architecture, open_checkpoint
from pymerge.checkpoint.names import find_side, is_buffer, last_part
from pymerge.checkpoint.renaming import align_names
from pymerge.config import ModelRef


def infer(folder: Path) -> Architecture:
    return infer_architecture(open_checkpoint(ModelRef(str(folder))))


def infer_names(folder: Path, names: list[str], config: dict[str, Any]) -> Architecture:
    return infer(toys.write_stand_in(folder, config, dict.fromkeys(names, ("BF16", (8, 4)))))


# Family -> prefix of the layers, key of the layer count, embedding, head.
FOUND = {
    "llama": ("model.layers", "num_hidden_layers", "model.embed_tokens.weight", "lm_head.weight"),
    "mistral": ("model.layers", "num_hidden_layers", "model.embed_tokens.weight", "lm_head.weight"),
    "qwen2": ("model.layers", "num_hidden_layers", "model.embed_tokens.weight", None),
    "qwen3": ("model.layers", "num_hidden_layers", "model.embed_tokens.weight", "lm_head.weight"),
    "gemma2": ("model.layers", "num_hidden_layers", "model.embed_tokens.weight", None),
    "phi3": ("model.layers", "num_hidden_layers", "model.embed_tokens.weight", "lm_head.weight"),
    "gpt2": ("transformer.h", "n_layer", "transformer.wte.weight", None),
    "gpt_neox": ("gpt_neox.layers", "num_hidden_layers", "gpt_neox.embed_in.weight", "embed_out.weight"),
    "mixtral": ("model.layers", "num_hidden_layers", "model.embed_tokens.weight", "lm_head.weight"),
}


@pytest.mark.parametrize(("family", "found"), FOUND.items(), ids=FOUND.keys())
def test_family(toy: Callable[..., Path], family: str, found: tuple[str, str, str, str | None]) -> None:
    architecture = infer(toy(family))
    (stack,) = architecture.stacks
    assert (stack.prefix, stack.count, stack.keys) == (found[0], toys.LAYERS, ((found[1],),))
    assert (architecture.embedding, architecture.head) == found[2:]
    assert architecture.obstacle is None
    assert architecture.label == toys.FAMILIES[family][0]


@pytest.mark.parametrize("family", FOUND)
def test_every_tensor_has_a_place(toy: Callable[..., Path], family: str) -> None:
    checkpoint = open_checkpoint(ModelRef(str(toy(family))))
    architecture = infer_architecture(checkpoint)
    (stack,) = architecture.stacks
    for name, layer in architecture.layers.items():
        assert stack.name(layer.index, layer.rest) == name
    loose = checkpoint.tensors.keys() - architecture.layers.keys()
    assert all(find_side(name) == ("after" if "norm" in name or "ln_f" in name or "head" in name or "out" in name
               else "before") for name in loose)  # fmt: skip
    rests = {layer.rest for layer in architecture.layers.values()}
    assert len(architecture.layers) == len(rests) * toys.LAYERS


def test_nested_numbers_are_not_layers(toy: Callable[..., Path]) -> None:
    layer = infer(toy("mixtral")).layers["model.layers.2.block_sparse_moe.experts.1.w2.weight"]
    assert (layer.index, layer.rest) == (2, "block_sparse_moe.experts.1.w2.weight")


def test_encoder_decoder_has_two_stacks(toy: Callable[..., Path]) -> None:
    architecture = infer(toy("t5"))
    assert [(stack.prefix, stack.count) for stack in architecture.stacks] == [
        ("decoder.block", 4),
        ("encoder.block", 3),
    ]
    assert architecture.obstacle is not None
    assert "decoder.block (4), encoder.block (3)" in architecture.obstacle


def test_layer_count_in_a_nested_config(tmp_path: Path) -> None:
    names = [f"language_model.model.layers.{i}.w" for i in range(3)]
    config = {"model_type": "x", "text_config": {"num_hidden_layers": 3}}
    (stack,) = infer_names(tmp_path / "m", names, config).stacks
    assert stack.keys == (("text_config", "num_hidden_layers"),)


def test_tower_without_a_count_is_still_a_stack(tmp_path: Path) -> None:
    names = [
        f"{tower}.{i}.{part}" for tower, count in (("text", 3), ("vision", 4)) for i in range(count) for part in "abcd"
    ]
    architecture = infer_names(tmp_path / "m", names, {"num_hidden_layers": 3})
    assert architecture.obstacle == "the model has several stacks of layers: vision (4), text (3)"


def test_projector_with_numbers_is_loose(tmp_path: Path) -> None:
    names = [f"model.layers.{i}.w" for i in range(3)] + ["projector.0.weight", "projector.1.weight"]
    architecture = infer_names(tmp_path / "m", names, {"num_hidden_layers": 3})
    assert architecture.obstacle is None
    assert "projector.0.weight" not in architecture.layers


@pytest.mark.parametrize("count", [3, 4])
def test_missing_layer_is_an_obstacle(tmp_path: Path, count: int) -> None:
    names = [f"model.layers.{i}.w" for i in (0, 1, 3)]
    obstacle = infer_names(tmp_path / "m", names, {"num_hidden_layers": count}).obstacle
    assert obstacle is not None
    assert f"found: model.layers (3); config.json says num_hidden_layers = {count}" in obstacle


def test_count_that_differs_from_the_config_is_an_obstacle(tmp_path: Path) -> None:
    names = [f"model.layers.{i}.{part}" for i in range(5) for part in "abcd"]
    obstacle = infer_names(tmp_path / "m", names, {"num_hidden_layers": 4}).obstacle
    assert obstacle == "model.layers has 5 layers, config.json says num_hidden_layers = 4"


def test_override_architecture_names_the_label(tmp_path: Path) -> None:
    folder = toys.write_stand_in(tmp_path / "m", toys.llama_config(), {"a": ("F32", (1,))})
    ref = ModelRef(str(folder), override_architecture="MistralForCausalLM")
    assert infer_architecture(open_checkpoint(ref)).label == "MistralForCausalLM"


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("bert.embeddings.LayerNorm.weight", "before"),
        ("transformer.word_embeddings_layernorm.bias", "before"),
        ("transformer.rotary_emb.inv_freq", "before"),
        ("model.embedding_norm.weight", "after"),
        ("model.decoder.final_layer_norm.weight", "after"),
        ("cls.predictions.transform.dense.weight", "after"),
        ("score.weight", "after"),
        # Heads of masked language models, whose parts come from one model (DistilBERT, ALBERT, ELECTRA, XLM, XLNet).
        *((f"vocab_{part}", "after") for part in ("transform.weight", "layer_norm.bias", "projector.bias")),
        *((f"predictions.{part}", "after") for part in ("dense.weight", "LayerNorm.weight", "bias", "decoder.bias")),
        ("generator_predictions.dense.weight", "after"),
        ("discriminator_predictions.dense_prediction.weight", "after"),
        ("electra.embeddings_project.weight", "before"),
        ("pred_layer.proj.weight", "after"),
        ("lm_loss.bias", "after"),
        ("reward.weight", "after"),
        ("model.strange_output_thing", "after"),
        ("model.strange_thing", "before"),
    ],
)
def test_side_of_loose_tensors(name: str, side: str) -> None:
    assert find_side(name) == side


def test_buffers_are_told_by_name_and_dimensions() -> None:
    assert is_buffer("model.layers.0.self_attn.rotary_emb.inv_freq", (64,))
    assert is_buffer("h.0.attn.bias", (1, 1, 8, 8))
    assert not is_buffer("gpt_neox.layers.0.attention.bias", (8,))


@pytest.mark.parametrize(
    ("name", "part"), [("lm_head.weight", "lm_head"), ("a.b.bias", "b"), ("mixer.D", "D"), ("x", "x")]
)
def test_last_part(name: str, part: str) -> None:
    assert last_part(name) == part


@pytest.mark.parametrize(("have", "want"), [("h.0.w", "transformer.h.0.w"), ("transformer.h.0.w", "h.0.w")])
def test_wrapper_prefix_is_aligned(tmp_path: Path, have: str, want: str) -> None:
    tensors = {"lm_head.weight": ("F32", (1,))}
    one = open_checkpoint(ModelRef(str(toys.write_stand_in(tmp_path / "a", {}, {have: ("F32", (1,)), **tensors}))))
    two = open_checkpoint(ModelRef(str(toys.write_stand_in(tmp_path / "b", {}, {want: ("F32", (1,)), **tensors}))))
    aligned = align_names(one, two)
    assert set(aligned.tensors) == {want, "lm_head.weight"}
    assert aligned.tensors[want].name == have
