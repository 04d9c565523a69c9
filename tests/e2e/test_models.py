"""Families of models, made small by transformers: what a merge of them gives is loaded, whole, and run.

docs/models.md is made from FAMILIES: `python -m tools.models_page --update`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import toys
from safetensors.numpy import load_file, save_file

import pymerge
from pymerge.errors import PymergeError

VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
          "image_size": 28, "patch_size": 14}  # fmt: skip
TEXT: dict[str, Any] = {**toys.FAMILIES["llama"][2], "num_hidden_layers": 2}
EXPERTS = {"num_experts_per_tok": 2}


@dataclass(frozen=True)
class Family:
    """A kind of model.

    Attributes:
        title: for people.
        model, config: names of transformers' classes.
        settings: of the config; `text`, `vision`: those of its parts, by the classes that they are of.
        stacks: whether layers can be stacked: there is one stack of them.
    """

    title: str
    model: str
    config: str
    settings: Mapping[str, Any]
    text: tuple[str, Mapping[str, Any]] | None = None
    vision: tuple[str, Mapping[str, Any]] | None = None
    stacks: bool = True
    inputs: tuple[str, ...] = field(default=("input_ids",))

    def make(self, seed: int) -> Any:
        """A model with random weights, in bfloat16."""
        import torch
        import transformers

        parts = {
            f"{kind}_config": getattr(transformers, part[0])(**part[1])
            for kind, part in (("text", self.text), ("vision", self.vision))
            if part
        }
        torch.manual_seed(seed)
        config = getattr(transformers, self.config)(**self.settings, **parts)
        return getattr(transformers, self.model)(config).to(torch.bfloat16)


FAMILIES = {
    "mixtral": Family(
        "Mixtral (experts apart)", "MixtralForCausalLM", "MixtralConfig", {**TEXT, **EXPERTS, "num_local_experts": 4}
    ),
    "qwen3_moe": Family(
        "Qwen3-MoE", "Qwen3MoeForCausalLM", "Qwen3MoeConfig",
        {**TEXT, **EXPERTS, "num_experts": 4, "moe_intermediate_size": 16, "head_dim": 8, "decoder_sparse_step": 1},
    ),
    "deepseek_v3": Family(
        "DeepSeek-V3", "DeepseekV3ForCausalLM", "DeepseekV3Config",
        {**TEXT, **EXPERTS, "num_hidden_layers": 3, "num_key_value_heads": 4, "n_routed_experts": 4,
         "moe_intermediate_size": 16, "first_k_dense_replace": 1, "n_group": 2, "topk_group": 1, "q_lora_rank": 16,
         "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8},
    ),
    "gpt_oss": Family(
        "gpt-oss (experts fused)", "GptOssForCausalLM", "GptOssConfig",
        {**TEXT, **EXPERTS, "num_local_experts": 4, "head_dim": 8, "sliding_window": 16},
    ),
    "t5": Family(
        "T5", "T5ForConditionalGeneration", "T5Config",
        {"vocab_size": toys.VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 3,
         "num_heads": 4, "decoder_start_token_id": 0},
        stacks=False, inputs=("input_ids", "decoder_input_ids"),
    ),
    "bert": Family(
        "BERT", "BertForMaskedLM", "BertConfig",
        {"vocab_size": toys.VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4, "max_position_embeddings": 64},
    ),
    "gemma3": Family(
        "Gemma 3, with images", "Gemma3ForConditionalGeneration", "Gemma3Config",
        {"mm_tokens_per_image": 4, "image_token_index": 95, "boi_token_index": 93, "eoi_token_index": 94},
        ("Gemma3TextConfig", {**TEXT, "head_dim": 8, "sliding_window": 16}), ("SiglipVisionConfig", VISION), False,
    ),
    "qwen2_5_vl": Family(
        "Qwen2.5-VL", "Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLConfig",
        {"text_config": {**TEXT, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}},
         "vision_config": {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4,
                           "out_hidden_size": 32, "patch_size": 14, "fullatt_block_indexes": [1]},
         "image_token_id": 95, "video_token_id": 94, "vision_start_token_id": 93, "vision_end_token_id": 92},
        stacks=False,
    ),
    "llava": Family(
        "LLaVA", "LlavaForConditionalGeneration", "LlavaConfig", {"image_token_index": 95}, ("LlamaConfig", TEXT),
        ("CLIPVisionConfig", VISION), False,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """Folder of a family's model with this seed."""
    made: dict[tuple[str, int], Path] = {}

    def get(name: str, seed: int) -> Path:
        if (name, seed) not in made:
            folder = tmp_path_factory.mktemp(f"{name}{seed}")
            FAMILIES[name].make(seed).save_pretrained(folder)
            (folder / "processor_config.json").write_text("{}")
            made[name, seed] = folder
        return made[name, seed]

    return get


def read(folder: Path) -> dict[str, Any]:
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def check_loading(name: str, folder: Path) -> None:
    """Load a model, nothing missing and nothing unexpected, and run it on a few tokens."""
    import torch
    import transformers

    family = FAMILIES[name]
    kind = getattr(transformers, family.model)
    model, info = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    tokens = torch.tensor([[1, 5, 7, 9]])
    with torch.no_grad():
        logits = model(**dict.fromkeys(family.inputs, tokens)).logits
    assert logits.shape == (1, 4, toys.VOCABULARY)
    assert bool(torch.isfinite(logits).all())


def write_fused(source: Path, folder: Path) -> None:
    """A Mixtral with the experts of each layer in one tensor, as other mergers write them."""
    folder.mkdir()
    tensors = read(source)
    made = {name: tensor for name, tensor in tensors.items() if "block_sparse_moe" not in name}
    for layer in range(TEXT["num_hidden_layers"]):
        old, new = (f"model.layers.{layer}.{block}" for block in ("block_sparse_moe", "mlp"))
        parts = {part: [tensors[f"{old}.experts.{e}.{part}.weight"] for e in range(4)] for part in ("w1", "w2", "w3")}
        gates = [np.concatenate(pair) for pair in zip(parts["w1"], parts["w3"], strict=True)]
        made[f"{new}.experts.gate_up_proj"] = np.stack(gates)
        made[f"{new}.experts.down_proj"] = np.stack(parts["w2"])
        made[f"{new}.gate.weight"] = tensors[f"{old}.gate.weight"]
    save_file(made, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())


def mean_of(*folders: Path) -> dict[str, Any]:
    entries = [{"model": str(folder), "parameters": {"weight": 0.5}} for folder in folders]
    return {"merge_method": "linear", "models": entries, "dtype": "bfloat16"}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_mean_is_a_model(name: str, models: Callable[[str, int], Path], tmp_path: Path) -> None:
    pymerge.merge(mean_of(models(name, 0), models(name, 1)), tmp_path / "out")
    first, second, merged = (read(folder) for folder in (models(name, 0), models(name, 1), tmp_path / "out"))
    assert merged.keys() == first.keys()
    for key, tensor in merged.items():
        mean = (first[key].astype(np.float32) + second[key].astype(np.float32)) / 2
        assert (tensor == mean.astype(tensor.dtype)).all(), key
    check_loading(name, tmp_path / "out")
    assert (tmp_path / "out" / "processor_config.json").exists()


@pytest.mark.parametrize("name", FAMILIES)
def test_passing_through_changes_no_byte(name: str, models: Callable[[str, int], Path], tmp_path: Path) -> None:
    recipe: dict[str, Any] = {"merge_method": "passthrough", "models": [{"model": str(models(name, 0))}]}
    pymerge.merge(recipe, tmp_path / "out")
    first, merged = read(models(name, 0)), read(tmp_path / "out")
    assert {key: tensor.tobytes() for key, tensor in merged.items()} == {k: t.tobytes() for k, t in first.items()}
    check_loading(name, tmp_path / "out")


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.stacks])
def test_stacked_layers_are_a_model(name: str, models: Callable[[str, int], Path], tmp_path: Path) -> None:
    layers = [{"sources": [{"model": str(models(name, seed)), "layer_range": [0, 2]}]} for seed in (0, 1)]
    if name == "deepseek_v3":
        layers[1]["sources"][0]["layer_range"] = [1, 3]
    pymerge.merge({"merge_method": "passthrough", "slices": layers}, tmp_path / "out")
    check_loading(name, tmp_path / "out")


@pytest.mark.parametrize("fused_first", [False, True])
@pytest.mark.parametrize("method", ["linear", "ties"])
def test_experts_that_were_saved_differently_merge(
    fused_first: bool, method: str, models: Callable[[str, int], Path], tmp_path: Path
) -> None:
    apart = [models("mixtral", seed) for seed in (0, 1)]
    fused = [tmp_path / f"fused{seed}" for seed in (0, 1)]
    for source, folder in zip(apart, fused, strict=True):
        write_fused(source, folder)

    def merge(first: Path, second: Path, out: str) -> dict[str, Any]:
        recipe = mean_of(first, second)
        if method == "ties":
            recipe = {**recipe, "merge_method": "ties", "base_model": str(first), "parameters": {"density": 0.4}}
        pymerge.merge(recipe, tmp_path / out)
        pymerge.merge(recipe, tmp_path / f"{out}-reference", backend="reference")
        assert {k: t.tobytes() for k, t in read(tmp_path / out).items()} == {
            k: t.tobytes() for k, t in read(tmp_path / f"{out}-reference").items()
        }
        return read(tmp_path / out)

    same, mixed = (fused, (fused[0], apart[1])) if fused_first else (apart, (apart[0], fused[1]))
    expected, merged = merge(*same, "same"), merge(*mixed, "mixed")
    assert {key: tensor.tobytes() for key, tensor in merged.items()} == {k: t.tobytes() for k, t in expected.items()}
    check_loading("mixtral", tmp_path / "mixed")


@pytest.mark.parametrize("name", ["gemma3", "llava"])
def test_a_text_tower_is_merged_while_the_rest_stays_a_models(
    name: str, models: Callable[[str, int], Path], tmp_path: Path
) -> None:
    recipe = {
        **mean_of(models(name, 0), models(name, 1)),
        "base_model": str(models(name, 1)),
        "include": ["language_model"],
    }
    pymerge.merge(recipe, tmp_path / "out")
    kept, merged = read(models(name, 1)), read(tmp_path / "out")
    changed = {key for key, tensor in merged.items() if tensor.tobytes() != kept[key].tobytes()}
    assert changed
    assert all("language_model" in key for key in changed)
    check_loading(name, tmp_path / "out")


#: Whether each of two models has an output head of its own.
HEADS = [(False, False), (False, True), (True, False), (True, True)]


@pytest.mark.parametrize("heads", HEADS)
def test_tied_and_untied_models_give_one_that_loads(heads: tuple[bool, bool], tmp_path: Path) -> None:
    import torch
    import transformers

    for number, head in enumerate(heads):
        torch.manual_seed(number)
        config = transformers.LlamaConfig(**{**TEXT, "tie_word_embeddings": not head})
        model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
        model.save_pretrained(tmp_path / str(number))
    pymerge.merge(mean_of(tmp_path / "0", tmp_path / "1"), tmp_path / "out")
    check_head(tmp_path / "out", any(heads))


def test_a_tied_model_that_stores_its_head_gives_one_that_loads(tmp_path: Path) -> None:
    import torch
    import transformers

    for number in range(2):
        torch.manual_seed(number)
        config = transformers.LlamaConfig(**{**TEXT, "tie_word_embeddings": True})
        folder = tmp_path / str(number)
        transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
        if number == 0:
            tensors = read(folder)
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    pymerge.merge(mean_of(tmp_path / "0", tmp_path / "1"), tmp_path / "out")
    merged = read(tmp_path / "out")
    assert merged["lm_head.weight"].dtype == ml_dtypes.bfloat16
    assert merged["lm_head.weight"].tobytes() == merged["model.embed_tokens.weight"].tobytes()
    check_head(tmp_path / "out", True)


def check_head(folder: Path, own: bool) -> None:
    """The loaded model's head is what the merge gave: the head where there is one, else the embedding."""
    import torch
    import transformers

    model, info = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    merged = read(folder)
    assert ("lm_head.weight" in merged) == own
    expected = merged["lm_head.weight" if own else "model.embed_tokens.weight"]
    assert (model.lm_head.weight.detach().float().numpy() == expected.astype(np.float32)).all()


def test_the_page_of_models_lists_what_is_tested() -> None:
    from tools.models_page import PAGE, make_page

    assert PAGE.read_text() == make_page(FAMILIES)


def modules_of(**parts: Any) -> dict[str, Any]:
    """A recipe that says of each part what is merged in it."""
    return {"merge_method": "linear", "dtype": "bfloat16", "modules": parts}


def weighed(name: str, models: Callable[[str, int], Path], *weights: float) -> dict[str, Any]:
    listed = enumerate(weights)
    return {"models": [{"model": str(models(name, seed)), "parameters": {"weight": weight}} for seed, weight in listed]}


@pytest.mark.parametrize("name", ["gemma3", "llava", "qwen2_5_vl"])
def test_modules_are_merged_each_in_its_own_way(name: str, models: Callable[[str, int], Path], tmp_path: Path) -> None:
    text, vision = weighed(name, models, 0.5, 0.5), weighed(name, models, 0.25, 0.75)
    projector = {"models": [{"model": str(models(name, 1)), "parameters": {"weight": 1}}]}
    recipe = modules_of(text_decoder=text, vision_tower=vision, multi_modal_projector=projector)
    plan = pymerge.plan(recipe)
    assert not [warning for warning in plan.warnings if "no module" in str(warning)]
    pymerge.merge(recipe, tmp_path / "out")
    pymerge.merge(recipe, tmp_path / "reference", backend="reference")
    first, second, merged = (read(folder) for folder in (models(name, 0), models(name, 1), tmp_path / "out"))
    assert merged.keys() == first.keys()
    assert all(read(tmp_path / "reference")[key].tobytes() == tensor.tobytes() for key, tensor in merged.items())
    for key, tensor in merged.items():
        a, b = (each[key].astype(np.float32) for each in (first, second))
        projecting = "multi_modal_projector" in key or "visual.merger" in key
        seeing = "vision" in key or "visual" in key
        expected = b if projecting else 0.25 * a + 0.75 * b if seeing else (a + b) / 2
        assert (tensor == expected.astype(tensor.dtype)).all(), key
    check_loading(name, tmp_path / "out")


def test_encoder_and_decoder_are_modules(models: Callable[[str, int], Path], tmp_path: Path) -> None:
    parts = {name: weighed("t5", models, *weights) for name, weights in (("encoder", (1, 0)), ("decoder", (0.5, 0.5)))}
    pymerge.merge(modules_of(**parts), tmp_path / "out")
    first, merged = read(models("t5", 0)), read(tmp_path / "out")
    changed = {key for key, tensor in merged.items() if tensor.tobytes() != first[key].tobytes()}
    assert changed
    assert all(key.startswith("decoder.") for key in changed)
    check_loading("t5", tmp_path / "out")
    warnings = map(str, pymerge.plan(modules_of(**parts)).warnings)
    assert any("in no module of the recipe" in warning and "shared.weight" in warning for warning in warnings)


def test_layers_of_a_module_are_stacked(models: Callable[[str, int], Path], tmp_path: Path) -> None:
    deep = {"slices": [{"sources": [{"model": str(models("llava", seed)), "layer_range": [0, 2]}]} for seed in (0, 1)]}
    recipe = {**modules_of(text_decoder=deep), "merge_method": "passthrough"}
    pymerge.merge(recipe, tmp_path / "out")
    check_loading("llava", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["text_config"]["num_hidden_layers"] == 4
    assert config["vision_config"]["num_hidden_layers"] == VISION["num_hidden_layers"]


def test_a_module_that_is_not_there_is_refused_with_those_that_are(models: Callable[[str, int], Path]) -> None:
    recipe = modules_of(audio_tower=weighed("llava", models, 1))
    with pytest.raises(PymergeError, match=r'no module "audio_tower".*vision_tower'):
        pymerge.plan(recipe)
