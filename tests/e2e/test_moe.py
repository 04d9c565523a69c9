"""Dense models as experts: what comes out loads, computes what its experts do, and has the right bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import toys
from execute import merges
from moe_toys import document, prompted, read
from typer.testing import CliRunner, Result

import pymerge
from pymerge.cli import app
from pymerge.execute import Progress
from pymerge.execute.journal import JOURNAL
from pymerge.verify.values import Status

#: Output -> (type of the dense models, shared experts).
MIXTURES = {
    "MixtralForCausalLM": ("llama", 0),
    "MixtralForCausalLM of mistral": ("mistral", 0),
    "Qwen2MoeForCausalLM": ("qwen2", 1),
    "Qwen2MoeForCausalLM of llama": ("llama", 1),
    "Qwen3MoeForCausalLM": ("qwen3", 0),
}


def load(folder: str) -> tuple[Any, dict[str, Any]]:
    import torch
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    return model.eval(), info


def compute(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(torch.tensor([[1, 5, 7, 11, 40]])).logits


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_loads_whole_and_experts_that_are_all_one_model_compute_what_it_does(
    dense: Callable[..., None], here: Path, name: str
) -> None:
    family, shared = MIXTURES[name]
    dense(family)
    # What always works adds nothing: Qwen's would be weighed and added besides.
    pymerge.moe(document("bb", shared, gate_mode="uniform_random"), "out", untrained=True)
    mixture, info = load("out")
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(mixture).__name__ == name.split()[0]
    assert mixture.config.num_experts_per_tok == 2
    plain, _ = load("b")
    np.testing.assert_allclose(compute(mixture), compute(plain), rtol=0, atol=2e-6)
    assert json.loads(Path("out/config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize("name", MIXTURES)
def test_experts_and_all_that_stays_are_copies(dense: Callable[..., None], here: Path, name: str) -> None:
    family, shared = MIXTURES[name]
    dense(family)
    report = pymerge.moe(document(shared=shared), "out")
    made, base = read("out"), read("b")
    kept = {key: value for key, value in base.items() if ".mlp." not in key}
    assert all(made[key].tobytes() == value.tobytes() for key, value in kept.items())
    pattern = {
        "Mixtral": ("block_sparse_moe.experts.{}.{}.weight", {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}),
        "Qwen": ("mlp.experts.{}.{}.weight", {part: part for part in ("gate_proj", "up_proj", "down_proj")}),
    }["Mixtral" if name.startswith("Mixtral") else "Qwen"]
    for number, expert in enumerate("xy"):
        tensors = read(expert)
        for layer in range(toys.LAYERS):
            for part, inner in pattern[1].items():
                place = f"model.layers.{layer}.{pattern[0].format(number, inner)}"
                assert made[place].tobytes() == tensors[f"model.layers.{layer}.mlp.{part}.weight"].tobytes()
    assert report.copied >= len(kept) + 2 * 3 * toys.LAYERS
    zeros = [value for key, value in made.items() if key.endswith("bias") and key not in base]
    assert len(zeros) == (3 * toys.LAYERS if name == "Qwen2MoeForCausalLM of llama" else 0)
    assert not any(value.any() for value in zeros)


def test_what_goes_with_a_mixture_is_the_bases(dense: Callable[..., None], here: Path) -> None:
    dense()
    (here / "b" / "generation_config.json").write_text('{"eos_token_id": 7}')
    recipe = here / "moe.yml"
    recipe.write_text("# mine\n" + json.dumps(document()))
    pymerge.moe(recipe, "out")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (here / "out" / name).read_bytes() == (here / "b" / name).read_bytes()
    assert (here / "out" / "pymerge_moe.yml").read_text() == recipe.read_text()
    card = (here / "out" / "README.md").read_text()
    assert "# mine" in card
    assert "method `moe` (Mixture of experts" in card
    assert not (here / "out" / "mergekit_config.yml").exists()


def test_noise_is_added_and_then_scaled(dense: Callable[..., None], here: Path) -> None:
    dense()
    experts = [{"source_model": "x", "noise_scale": 0.05, "residual_scale": 0.3}, "y"]
    recipe = document(experts, dtype="float32")
    pymerge.moe(recipe, "out", seed=3)
    made, source = read("out"), read("x")
    for layer, (part, inner) in [(0, ("gate_proj", "w1")), (3, ("up_proj", "w3")), (2, ("down_proj", "w2"))]:
        name = f"model.layers.{layer}.block_sparse_moe.experts.0.{inner}.weight"
        weight = source[f"model.layers.{layer}.mlp.{part}.weight"].astype(np.float32)
        added = made[name] / np.float32(0.3 if inner == "w2" else 1) - weight
        assert abs(added.std() / 0.05 - 1) < 0.15
        assert abs(added.mean()) < 5 * 0.05 / np.sqrt(added.size)
    pymerge.moe(recipe, "again", seed=3)
    pymerge.moe(recipe, "other", seed=4)
    files = [Path(name, "model.safetensors").read_bytes() for name in ("out", "again", "other")]
    assert files[0] == files[1] != files[2]


def test_a_scale_without_noise_is_one_product(dense: Callable[..., None], here: Path) -> None:
    dense()
    pymerge.moe(document([{"source_model": "x", "residual_scale": 0.7}, "y"]), "out")
    weight = read("x")["model.layers.1.mlp.down_proj.weight"].astype(np.float32)
    made = read("out")["model.layers.1.block_sparse_moe.experts.0.w2.weight"]
    assert made.tobytes() == (weight * np.float32(0.7)).astype(ml_dtypes.bfloat16).tobytes()


@pytest.mark.parametrize("mode", ["random", "cheap_embed", "hidden"])
def test_the_bytes_are_the_same_for_every_number_of_threads_and_after_a_stop(
    dense: Callable[..., None], here: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    dense()
    recipe = prompted(mode)
    recipe["experts"][0] |= {"noise_scale": 0.01, "residual_scale": 0.5}
    pymerge.moe(recipe, "whole", threads=1)
    pymerge.moe(recipe, "threads", threads=2, memory=150 << 20)
    with monkeypatch.context() as patch:
        merges.take_small_steps(patch)

        def stop(progress: Progress) -> None:
            if progress.written > progress.total // 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pymerge.moe(recipe, "half", threads=1, on_progress=stop)
    assert Path("half", JOURNAL).exists()
    assert pymerge.moe(recipe, "half").execution.kept > 0
    whole = Path("whole/model.safetensors").read_bytes()
    assert Path("threads/model.safetensors").read_bytes() == whole
    assert Path("half/model.safetensors").read_bytes() == whole


def test_the_reference_backend_writes_the_same_bytes(dense: Callable[..., None], here: Path) -> None:
    dense()
    recipe = document([{"source_model": "x", "noise_scale": 0.01, "residual_scale": 0.5}, "y"], gate_mode="uniform")
    pymerge.moe(recipe, "out")
    pymerge.moe(recipe, "reference", backend="reference")
    assert Path("out/model.safetensors").read_bytes() == Path("reference/model.safetensors").read_bytes()


@pytest.mark.parametrize("mode", ["random", "cheap_embed"])
def test_a_mixture_is_verified(dense: Callable[..., None], here: Path, mode: str) -> None:
    dense()
    recipe = prompted(mode)
    recipe["experts"][1] |= {"noise_scale": 0.01, "residual_scale": 0.5}
    pymerge.moe(recipe, "out")
    found = pymerge.verify("out", sample=None)
    assert found.status is Status.PASSED, found.checks
    routers = toys.LAYERS if mode == "cheap_embed" else 0
    assert len(found.recomputed) == len(read("out")) - routers


@pytest.mark.filterwarnings("ignore")
def test_an_expert_may_be_a_model_with_an_adapter(dense: Callable[..., None], here: Path) -> None:
    import peft
    import torch
    import transformers

    dense()
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_pretrained("x", dtype=torch.float32)
    tuned = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["down_proj"]))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) / 8)
    tuned.save_pretrained(here / "lora")
    pymerge.moe(document(["x+lora", "y"], dtype="float32"), "out")
    expected = tuned.merge_and_unload().state_dict()["model.layers.2.mlp.down_proj.weight"].numpy()
    made = read("out")["model.layers.2.block_sparse_moe.experts.0.w2.weight"]
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-6)


def test_an_overwritten_folder_keeps_nothing_of_the_other_recipe(dense: Callable[..., None], here: Path) -> None:
    dense()
    pymerge.merge({"merge_method": "linear", "models": [{"model": "x", "parameters": {"weight": 1}}]}, "out")
    pymerge.moe(document(), "out", overwrite=True)
    assert [Path("out", name).exists() for name in ("mergekit_config.yml", "pymerge_moe.yml")] == [False, True]


def test_tied_embeddings_stay_tied(dense: Callable[..., None], here: Path) -> None:
    dense(tie_word_embeddings=True)
    pymerge.moe(document(), "out")
    mixture, info = load("out")
    assert not info["missing_keys"]
    assert mixture.config.tie_word_embeddings is True


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["moe", *map(str, arguments)])


def test_the_command_plans_builds_and_says_what_has_no_effect(dense: Callable[..., None], here: Path) -> None:
    dense()
    recipe = here / "moe.yml"
    recipe.write_text(json.dumps(prompted("cheap_embed")))
    planned = run(recipe, "out", "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert "Mixture" not in planned.stdout
    assert "moe" in planned.stdout
    assert not (here / "out").exists()
    built = run(recipe, "out", "--load-in-4bit", "--threads", "1", "--out-shard-size", "100k")
    assert built.exit_code == 0, built.output
    assert "--load-in-4bit has no effect" in built.stderr
    assert (here / "out" / "model.safetensors.index.json").exists()
    again = run(recipe, "out", "--quiet")
    assert again.exit_code == 2
    assert "is not empty" in again.stderr


def test_the_command_names_the_place_of_a_mistake(dense: Callable[..., None], here: Path) -> None:
    dense()
    recipe = here / "moe.yml"
    recipe.write_text("base_model: b\ngate_mode: random\nexperts:\n- source_model: x\n- source_model: x\n")
    refused = run(recipe, "out")
    assert refused.exit_code == 2
    assert f"error: {recipe}:4:3: all experts are" in refused.stderr
    accepted = run(recipe, "out", "--i-understand-this-is-not-useful-without-training", "--quiet")
    assert accepted.exit_code == 0, accepted.output
