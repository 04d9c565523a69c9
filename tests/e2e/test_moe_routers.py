"""Rows of routers: against torch and transformers, and against distributions; what is refused and warned of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from moe_toys import PROMPTS, WORDS, document, prompted, read

import pymerge
from pymerge.errors import FormatError, RecipeError
from pymerge.execute import Progress
from pymerge.gates import find as gates


@pytest.mark.parametrize(("mode", "kind", "scale"), [("random", 1, 1.0), ("uniform", 0, 1 / np.sqrt(toys.WIDTH))])
def test_drawn_routers_have_their_distribution(
    dense: Callable[..., None], here: Path, mode: str, kind: int, scale: float
) -> None:
    dense()
    pymerge.moe(document(gate_mode=mode, dtype="float32"), "out")
    rows = [value for name, value in read("out").items() if name.endswith("gate.weight")]
    drawn = np.stack(rows).reshape(-1) / scale
    assert len({row.tobytes() for row in rows}) == toys.LAYERS
    variance = 1.0 if kind else 1 / 3
    assert abs(drawn.mean()) < 5 * np.sqrt(variance / drawn.size)
    assert abs(drawn.var() / variance - 1) < 0.5
    assert (np.abs(drawn).max() <= 1) == (not kind)


def encode(prompt: str) -> list[int]:
    return [1, *(WORDS.index(word) for word in prompt.split())]


def directions(state: Callable[[str], Any]) -> list[Any]:
    """What the modes have in common, by torch: one direction for each expert, [..., width]."""
    import torch

    found = []
    for prompts in PROMPTS:
        vector = torch.stack([state(prompt) for prompt in prompts["positive_prompts"]]).mean(0)
        for prompt in prompts.get("negative_prompts", ()):
            vector = vector - state(prompt)
        found.append(torch.nn.functional.normalize(vector, dim=-1).numpy())
    return found


def test_cheap_routers_are_sums_of_embeddings(dense: Callable[..., None], here: Path) -> None:
    import torch

    dense()
    pymerge.moe(prompted("cheap_embed", dtype="float32"), "out")
    embedding = torch.from_numpy(read("b")["model.embed_tokens.weight"].astype(np.float32))

    def add_up(prompts: list[str]) -> Any:
        total = sum(embedding[encode(prompt)].sum(0) for prompt in prompts)
        return torch.nn.functional.normalize(total, dim=-1)

    expected = []
    for each in PROMPTS:
        vector = add_up(each["positive_prompts"])
        if "negative_prompts" in each:
            vector = vector - add_up(each["negative_prompts"])
        expected.append(torch.nn.functional.normalize(vector, dim=-1).numpy())
    for layer in range(toys.LAYERS):
        rows = read("out")[f"model.layers.{layer}.block_sparse_moe.gate.weight"]
        np.testing.assert_allclose(rows, np.stack(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["hidden", "hidden_avg"])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_routers_are_states_that_enter_layers(dense: Callable[..., None], here: Path, mode: str, family: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    dense(family)
    shared = [{"source_model": "y", "positive_prompts": ["love"]}] if family == "qwen2" else []
    pymerge.moe(prompted(mode, dtype="float32", shared_experts=shared), "out")
    base = AutoModelForCausalLM.from_pretrained("b", dtype=torch.bfloat16).eval()

    def state(prompt: str) -> Any:
        with torch.no_grad():
            found = base(torch.tensor([encode(prompt)]), output_hidden_states=True).hidden_states[:-1]
        kept = [each[0].float().mean(0) if mode == "hidden_avg" else each[0, -1].float() for each in found]
        return torch.stack(kept)

    expected = np.stack(directions(state), axis=1)
    made = read("out")
    prefix = "mlp" if shared else "block_sparse_moe"
    for layer in range(toys.LAYERS):
        np.testing.assert_allclose(
            made[f"model.layers.{layer}.{prefix}.gate.weight"], expected[layer], rtol=0, atol=1e-5
        )
        if shared:
            row = made[f"model.layers.{layer}.mlp.shared_expert_gate.weight"]
            alone = torch.nn.functional.normalize(state("love"), dim=-1).numpy()
            np.testing.assert_allclose(row, alone[layer][None], rtol=0, atol=1e-5)


def test_routers_that_hardly_differ_are_warned_of(dense: Callable[..., None], here: Path) -> None:
    dense()
    experts = [
        {"source_model": "x", "positive_prompts": ["write a python sum with love"]},
        {"source_model": "y", "positive_prompts": ["write a python sum with love with"]},
    ]
    report = pymerge.moe(document(experts, gate_mode="cheap_embed"), "out")
    assert ["degenerate routers in all layers" in warning for warning in report.warnings] == [True]
    assert not pymerge.moe(prompted("cheap_embed"), "other").warnings


def test_a_matrix_is_as_well_conditioned_as_linear_algebra_says() -> None:
    from pymerge.gates.vectors import spread

    random = np.random.default_rng(0)
    for _ in range(20):
        rows = random.standard_normal((3, 8))
        values = np.linalg.svd(rows, compute_uv=False)
        assert spread(rows) == pytest.approx(values[0] / values[-1])
    assert spread(np.ones((2, 4))) > 1e15


def test_a_build_with_other_routers_does_not_go_on(
    dense: Callable[..., None], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense()

    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pymerge.moe(prompted("cheap_embed"), "out", on_progress=stop)
    monkeypatch.setattr(gates, "embed", lambda expert, *_: np.full((1, toys.WIDTH), len(expert.positive), np.float64))
    with pytest.raises(RecipeError, match="rows of routers"):
        pymerge.moe(prompted("cheap_embed"), "out")


def test_what_takes_libraries_that_are_not_there_is_refused(
    dense: Callable[..., None], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense()
    monkeypatch.setattr(gates, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"gate_mode hidden takes tokenizers and torch and transformers.*pip install"):
        pymerge.moe(prompted("hidden"), "out")
    assert not Path("out").exists()


def test_what_a_tokenizer_file_asks_for_besides_changes_nothing(dense: Callable[..., None], here: Path) -> None:
    dense()
    pymerge.moe(prompted("cheap_embed"), "out")
    path = here / "b" / "tokenizer.json"
    padding = {"strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 2,
               "pad_type_id": 0, "pad_token": "</s>"}  # fmt: skip
    cut = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    path.write_text(json.dumps({**json.loads(path.read_text()), "padding": padding, "truncation": cut}))
    pymerge.moe(prompted("cheap_embed"), "other")
    made = [(here / name / "model.safetensors").read_bytes() for name in ("out", "other")]
    assert made[0] == made[1]


def test_ids_without_a_row_are_refused(dense: Callable[..., None], here: Path) -> None:
    dense()
    text = Path("b/tokenizer.json").read_text()
    Path("b/tokenizer.json").write_text(text.replace('"love": 6', '"love": 600'))
    with pytest.raises(FormatError, match="gives the id 600"):
        pymerge.moe(prompted("cheap_embed"), "out")
