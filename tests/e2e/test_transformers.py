"""What comes out loads in transformers without a missing or surplus tensor, and computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import toys

import pymerge

FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "phi3", "gpt2", "mixtral")


def check_loading(folder: Path, layers: int) -> None:
    """Load a causal model and run it once."""
    import torch
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    assert model.config.num_hidden_layers == layers
    with torch.no_grad():
        logits = model(torch.tensor([[1, 5, 7]])).logits
    assert logits.shape == (1, 3, toys.VOCABULARY)
    assert bool(torch.isfinite(logits).all())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stack_of_layers_loads(tmp_path: Path, toy: Callable[..., Path], family: str) -> None:
    source = {"model": str(toy(family))}
    recipe = {
        "slices": [
            {"sources": [{**source, "layer_range": [0, 3]}]},
            {"sources": [{**source, "layer_range": [1, toys.LAYERS]}]},
        ],
        "merge_method": "passthrough",
    }
    pymerge.merge(recipe, tmp_path / "out")
    check_loading(tmp_path / "out", toys.LAYERS + 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mean_loads(tmp_path: Path, toy: Callable[..., Path], family: str) -> None:
    recipe = {
        "models": [{"model": str(toy(family, seed=seed)), "parameters": {"weight": 0.5}} for seed in (0, 1)],
        "merge_method": "linear",
        "dtype": "bfloat16",
    }
    pymerge.merge(recipe, tmp_path / "out")
    check_loading(tmp_path / "out", toys.LAYERS)
