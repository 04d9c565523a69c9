"""Adapters as PEFT itself saves them, against what PEFT itself makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import pymerge

#: What a user might train with; `bias` and `modules_to_save` bring whole tensors.
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]},
    "patterns": {
        "r": 4,
        "target_modules": "all-linear",
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.up_proj": 7},
        "alpha_pattern": {"v_proj": 3, r"layers\.[12]\.mlp\.up_proj": 5},
    },
    "stabilized": {"r": 8, "lora_alpha": 4, "use_rslora": True, "target_modules": ["o_proj", "embed_tokens"]},
    "saved": {"r": 2, "target_modules": ["gate_proj"], "modules_to_save": ["lm_head", "norm"]},
}
TURNED = {"r": 3, "lora_alpha": 6, "target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("family", "settings"), [*(("llama", s) for s in SETTINGS.values()), ("gpt2", TURNED)])
def test_an_adapter_gives_what_peft_merges(
    family: str, settings: dict[str, Any], toy: Callable[..., Path], here: Path
) -> None:
    import peft
    import torch
    import transformers

    base = toy(family)
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tuned = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.copy_(torch.randn_like(parameter) / 8)
    tuned.save_pretrained(here / "adapter")
    saved = tuned.merge_and_unload().state_dict().items()
    expected = {name.removeprefix("base_model.model."): value.numpy() for name, value in saved}
    recipe = {
        "merge_method": "linear",
        "models": [{"model": f"{base}+adapter", "parameters": {"weight": 1}}],
        "dtype": "float32",
    }
    pymerge.merge(recipe, here / "out")
    merged = load_file(here / "out" / "model.safetensors")
    assert len(merged) > 10
    for name, tensor in merged.items():
        np.testing.assert_allclose(tensor, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    loaded, info = transformers.AutoModelForCausalLM.from_pretrained(here / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert loaded.config.tie_word_embeddings == ("lm_head.weight" not in merged)
