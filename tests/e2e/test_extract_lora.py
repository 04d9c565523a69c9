"""Extracted adapters of real architectures: PEFT loads them, and merges them into what was fine-tuned."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  # safetensors reads bfloat16 by it
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import pymerge

#: Family, changes of its config, options.
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("llama", {}, {}),
    ("llama", {}, {"embed_lora": True}),
    ("llama", {}, {"save_modules": ["o_proj", "norm"]}),
    ("llama", {"tie_word_embeddings": True}, {}),
    ("qwen2", {}, {}),
    ("gemma2", {}, {}),
    ("phi3", {}, {}),
    ("gpt2", {}, {}),
    ("gpt_neox", {}, {}),
]


def fine_tune(base: Path, folder: Path) -> dict[str, np.ndarray]:
    """Four of five tensors changed, matrices by ranks of their own; saved in float32."""
    random = np.random.default_rng(0)
    shutil.copytree(base, folder)
    tensors = {name: tensor.astype(np.float32) for name, tensor in load_file(folder / "model.safetensors").items()}
    for number, (name, tensor) in enumerate(sorted(tensors.items())):
        # embed_out has another name in transformers than on the disk.
        if number % 5 == 4 or name == "embed_out.weight":
            continue
        if tensor.ndim == 2:
            rank = 1 + number % 4
            factors = [random.standard_normal(shape) / 4 for shape in ((len(tensor), rank), (rank, tensor.shape[1]))]
            tensors[name] = (tensor + factors[0] @ factors[1]).astype(np.float32)
        else:
            tensors[name] = tensor + random.standard_normal(tensor.shape).astype(np.float32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return tensors


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("family", "changes", "options"), CASES)
def test_peft_makes_the_fine_tuned_model_of_it(
    family: str, changes: dict[str, Any], options: dict[str, Any], toy: Callable[..., Path], here: Path
) -> None:
    import peft
    import torch
    import transformers

    base = toy(family, **changes)
    fine_tune(base, here / "tuned")
    report = pymerge.extract_lora("tuned", base, "lora", energy=1 - 1e-9, max_rank=16, dtype="float32", **options)
    assert report.error < 1e-5

    def load(folder: Path) -> Any:
        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    tuned, tokens = load(here / "tuned"), torch.arange(3, 20)[None]
    with torch.no_grad():
        expected = tuned(tokens).logits
        adapted = peft.PeftModel.from_pretrained(load(base), here / "lora")
        torch.testing.assert_close(adapted(tokens).logits, expected, rtol=1e-3, atol=1e-3)
        merged = adapted.merge_and_unload()
        torch.testing.assert_close(merged(tokens).logits, expected, rtol=1e-3, atol=1e-3)
    weights = merged.state_dict()
    for name, tensor in tuned.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=1e-4, msg=name)


def test_names_are_those_of_the_model_where_it_was_saved_without_its_wrapper(
    toy: Callable[..., Path], here: Path
) -> None:
    base = toy("gpt2")
    for folder in ("base", "tuned"):
        shutil.copytree(base, here / folder)
        stored = load_file(base / "model.safetensors")
        tensors = {name.removeprefix("transformer."): tensor for name, tensor in stored.items()}
        if folder == "tuned":
            tensors["h.1.attn.c_attn.weight"] = tensors["h.1.attn.c_attn.weight"] + 1
        save_file(tensors, here / folder / "model.safetensors", metadata={"format": "pt"})
    report = pymerge.extract_lora("tuned", "base", "lora")
    assert [(each.module, each.shape) for each in report.matrices] == [("transformer.h.1.attn.c_attn", (96, 32))]


def test_experts_have_factors_each_and_are_read_back(toy: Callable[..., Path], here: Path) -> None:
    base = toy("mixtral")
    tuned = fine_tune(base, here / "tuned")
    report = pymerge.extract_lora("tuned", base, "lora", energy=1 - 1e-9, max_rank=16, dtype="float32")
    assert any(".experts.0." in each.module for each in report.matrices)
    assert any("the model has experts" in warning for warning in report.warnings)
    model = {"model": f"{base}+lora", "parameters": {"weight": 1.0}}
    pymerge.merge({"merge_method": "linear", "models": [model], "dtype": "float32"}, here / "back")
    back = load_file(here / "back" / "model.safetensors")
    for name, tensor in tuned.items():
        np.testing.assert_allclose(back[name], tensor, rtol=1e-4, atol=1e-4, err_msg=name)
