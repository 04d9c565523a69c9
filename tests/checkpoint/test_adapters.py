"""LoRA adapters: what they make of a model, against PEFT's rules written out, and what is refused."""

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
from pymerge.checkpoint import open_checkpoint
from pymerge.config.values import ModelRef
from pymerge.errors import PymergeError

SHAPE = {"layers": 2, "width": 8, "vocabulary": 24}
MODULES = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj", "model.layers.1.self_attn.k_proj")


def write_base(folder: Path, **changes: Any) -> dict[str, Any]:
    """A toy model's tensors."""
    toys.write_llama(folder, dtype=ml_dtypes.bfloat16, **{**SHAPE, **changes})
    return {name: tensor.astype(np.float64) for name, tensor in load_file(folder / "model.safetensors").items()}


def write_adapter(folder: Path, tensors: dict[str, Any], **settings: Any) -> None:
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "lora_alpha": 8, "target_modules": ["q_proj"], **settings}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(
        {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}, folder / "adapter_model.safetensors"
    )


def make_factors(module: str, shape: tuple[int, ...], rank: int, seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        f"{module}.lora_A.weight": random.standard_normal((rank, shape[1])).astype(np.float32),
        f"{module}.lora_B.weight": random.standard_normal((shape[0], rank)).astype(np.float32),
    }


def merge(here: Path, model: Any, out: str = "out", **options: Any) -> dict[str, Any]:
    """The tensors of `model` alone, in float32."""
    recipe = {"merge_method": "linear", "models": [{"model": model, "parameters": {"weight": 1.0}}], "dtype": "float32"}
    pymerge.merge(recipe, here / out, **options)
    return dict(load_file(here / out / "model.safetensors"))


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_every_module_gets_its_own_rank_and_scale(tmp_path_factory: Any, data: st.DataObject) -> None:
    here = tmp_path_factory.mktemp("adapters")
    base = write_base(here / "base")
    factors: dict[str, Any] = {}
    alphas, ranks = {}, {}
    for seed, module in enumerate(MODULES):
        ranks[module] = data.draw(st.integers(1, 5))
        factors |= make_factors(module, base[f"{module}.weight"].shape, ranks[module], seed)
        alphas[module] = data.draw(st.sampled_from((None, 3, 16.5)))
    stabilized = data.draw(st.booleans())
    pattern = {
        (module.rpartition(".")[2] if n else module): alphas[module]
        for n, module in enumerate(MODULES)
        if alphas[module]
    }
    write_adapter(here / "lora", factors, use_rslora=stabilized, alpha_pattern=pattern, rank_pattern=ranks)
    merged = merge(here, f"{here / 'base'}+{here / 'lora'}")
    for name, stored in base.items():
        module = name.removesuffix(".weight")
        expected = stored
        if module in MODULES:
            alpha = alphas[module] or 8
            scale = alpha / (np.sqrt(ranks[module]) if stabilized else ranks[module])
            product = factors[f"{module}.lora_B.weight"].astype(np.float64) @ factors[f"{module}.lora_A.weight"]
            expected = stored + scale * product
        np.testing.assert_allclose(merged[name], expected, rtol=1e-6, atol=1e-5)


def test_embeddings_transposed_layers_and_saved_modules_are_applied(here: Path) -> None:
    base = write_base(here / "base")
    random = np.random.default_rng(3)
    width, vocabulary = SHAPE["width"], SHAPE["vocabulary"]
    a = random.standard_normal((2, vocabulary)).astype(np.float32)
    b = random.standard_normal((width, 2)).astype(np.float32)
    norm = np.full(width, 3.5, np.float32)
    write_adapter(
        here / "lora",
        {
            "model.embed_tokens.lora_embedding_A": a,
            "model.embed_tokens.lora_embedding_B": b,
            "model.norm.modules_to_save.default.weight": norm,
            "model.layers.0.input_layernorm.weight": norm,
        },
        modules_to_save=["norm"],
    )
    merged = merge(here, "base+lora")
    np.testing.assert_allclose(
        merged["model.embed_tokens.weight"], base["model.embed_tokens.weight"] + 4.0 * (b @ a).T, rtol=1e-6, atol=1e-5
    )
    assert (merged["model.norm.weight"] == 3.5).all()
    assert (merged["model.layers.0.input_layernorm.weight"] == 3.5).all()


def test_a_layer_that_keeps_its_weights_turned_is_updated_turned(here: Path) -> None:
    base = write_base(here / "base")
    name = "model.layers.0.mlp.up_proj"
    rows, columns = base[f"{name}.weight"].shape
    factors = make_factors(name, (columns, rows), 3, 1)
    write_adapter(here / "lora", factors, fan_in_fan_out=True)
    product = factors[f"{name}.lora_B.weight"] @ factors[f"{name}.lora_A.weight"]
    merged = merge(here, "base+lora")
    np.testing.assert_allclose(
        merged[f"{name}.weight"], base[f"{name}.weight"] + 8 / 3 * product.T, rtol=1e-5, atol=1e-5
    )


def test_a_head_that_an_adapter_brings_unties_the_model(here: Path) -> None:
    write_base(here / "base", head=False)
    head = np.ones((SHAPE["vocabulary"], SHAPE["width"]), np.float32)
    write_adapter(here / "lora", {"lm_head.weight": head}, modules_to_save=["lm_head"])
    assert (merge(here, "base+lora")["lm_head.weight"] == 1).all()
    assert json.loads((here / "out" / "config.json").read_text())["tie_word_embeddings"] is False


def test_several_adapters_of_one_base_are_merged_like_models(here: Path) -> None:
    base = write_base(here / "base")
    name = MODULES[0]
    for number in range(2):
        write_adapter(here / f"lora{number}", make_factors(name, base[f"{name}.weight"].shape, 2 + number, number))
    recipe = {
        "merge_method": "task_arithmetic",
        "base_model": "base",
        "models": [{"model": f"base+lora{n}", "parameters": {"weight": w}} for n, w in ((0, 0.75), (1, 0.5))],
        "dtype": "float32",
    }
    reports = [pymerge.merge(recipe, here / backend, backend=backend) for backend in ("cpu", "reference")]
    cpu, reference = (load_file(here / backend / "model.safetensors") for backend in ("cpu", "reference"))
    assert all(cpu[key].tobytes() == reference[key].tobytes() for key in cpu)
    deltas = [merge(here, f"base+lora{n}", f"one{n}")[f"{name}.weight"] - base[f"{name}.weight"] for n in range(2)]
    expected = base[f"{name}.weight"] + 0.75 * deltas[0] + 0.5 * deltas[1]
    np.testing.assert_allclose(cpu[f"{name}.weight"], expected, rtol=1e-5, atol=1e-5)
    assert pymerge.verify(here / "cpu", sample=None).status.value == "passed"
    assert reports[0].execution.digests


def change(tensors: dict[str, Any], kind: str, side: str) -> dict[str, Any]:
    """Factors, one of which has another type."""
    dtype = getattr(ml_dtypes, kind, kind)
    return {name: tensor.astype(dtype) if f"lora_{side}" in name else tensor for name, tensor in tensors.items()}


FACTORS = make_factors(MODULES[0], (8, 8), 2, 0)
#: Types that are no plain numbers, and the factor that has them.
CODES = (("float8_e4m3fn", "A"), ("float8_e5m2", "B"), ("int8", "B"), ("bool", "A"))


@pytest.mark.parametrize(
    ("settings", "tensors", "said"),
    [
        ({"peft_type": "IA3"}, {}, "only LORA"),
        ({"use_dora": True}, {}, "DoRA"),
        ({}, {"x.lora_magnitude_vector.weight": np.ones(3)}, "DoRA"),
        ({}, {"base_model.oddity": np.ones(3)}, "nothing that LoRA adapters hold"),
        ({}, {f"{MODULES[0]}.lora_A.weight": np.ones((2, 8))}, "not both"),
        ({}, make_factors(MODULES[0], (9, 8), 2, 0), "is not of the shape"),
        ({}, make_factors("model.layers.9.self_attn.q_proj", (8, 8), 2, 0), "does not have"),
        ({}, make_factors("model.norm", (8, 8), 2, 0), "no matrix"),
        ({"lora_alpha": "a"}, make_factors(MODULES[0], (8, 8), 2, 0), "is no number"),
        ({"lora_alpha": 10**400}, FACTORS, "gives .*q_proj the alpha 1000.*, which is no number or too large"),
        ({"lora_alpha": float("nan")}, FACTORS, "is no number"),
        ({"alpha_pattern": {"v_proj": 1, "q_proj": None}}, FACTORS, "is no number"),
        ({"alpha_pattern": {"(": 3}}, FACTORS, r"adapter_config.json: alpha_pattern: the key '\('"),
        ({"rank_pattern": [3]}, FACTORS, r"adapter_config.json: rank_pattern: expected an object .*not \[3\]"),
        ({"r": 4}, FACTORS, "r or rank_pattern gives .*q_proj the rank 4, its factors .* have the rank 2"),
        ({"r": 2, "rank_pattern": {"q_proj": 16}}, FACTORS, "the rank 16, its factors .* have the rank 2"),
        ({}, make_factors(MODULES[0], (8, 8), 0, 0), "q_proj has factors of rank 0"),
        *(({}, change(FACTORS, kind, side), rf'lora_{side}.weight" is {kind}, .*convert') for kind, side in CODES),
        ({}, {"model.norm.weight": np.ones(8, np.int8)}, 'tensor .*norm.weight" is int8, .*convert'),
        ({}, {"lm_head.weight": np.ones((24, 8), bool)}, 'tensor .*lm_head.weight" is bool, .*convert'),
        ({}, {"model.norm.weight": np.ones(9, np.float32)}, r'norm.weight" has the shape \[9\], and .*model \[8\]'),
        ({}, {"model.norm.weight": np.ones((8, 1), np.float32)}, r"has the shape \[8, 1\]"),
        ({}, {f"{MODULES[0]}.weight": np.ones((9, 8), np.float32)}, r"has the shape \[9, 8\], .*of the model \[8, 8\]"),
        ({}, {"model.embed_tokens.weight": np.ones((24, 9), np.float32)}, r"has the shape \[24, 9\]"),
        ({}, {n.replace(".weight", f".{a}.weight"): t for n, t in FACTORS.items() for a in "xy"}, "second adapter"),
        ({"target_parameters": ["experts.down_proj"]}, {}, "target_parameters"),
    ],
)
def test_what_cannot_be_applied_is_refused(here: Path, settings: Any, tensors: Any, said: str) -> None:
    write_base(here / "base")
    write_adapter(here / "lora", {"model.norm.weight": np.ones(8, np.float32), **tensors}, **settings)
    with pytest.raises(PymergeError, match=said):
        open_checkpoint(ModelRef("base", lora="lora"))


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ((f"{MODULES[0]}.lora_A.weight", 1, 3), r"lora/adapter_model.safetensors, .*q_proj.lora_A.weight\)"),
        ((f"{MODULES[0]}.lora_B.weight", 2, 1), r"lora/adapter_model.safetensors, .*q_proj.lora_B.weight\)"),
        (None, r"lora/adapter_model.safetensors, whose product overflows\)"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_value_of_an_adapter_that_is_not_finite_is_found_in_its_file(
    here: Path, place: tuple[str, int, int] | None, said: str, turned: bool
) -> None:
    write_base(here / "base")
    factors = {name: tensor.copy() for name, tensor in FACTORS.items()}
    if place is None:
        factors = {name: np.full_like(tensor, 1e30) for name, tensor in factors.items()}
    else:
        factors[place[0]][place[1:]] = np.nan
    write_adapter(here / "lora", factors, fan_in_fan_out=turned)
    with pytest.raises(PymergeError, match=rf"it is not finite in base\+lora \(.*{said} either"):
        merge(here, "base+lora")


def test_a_value_of_the_base_that_is_not_finite_is_found_in_its_file(here: Path) -> None:
    broken = np.ones((8, 8), ml_dtypes.bfloat16)
    broken[2, 3] = np.inf
    write_base(here / "base", extra={f"{MODULES[0]}.weight": broken})
    write_adapter(here / "lora", FACTORS)
    with pytest.raises(PymergeError, match=r"index 19 .*it is not finite in base\+lora \(.*base/model.safetensors\)"):
        merge(here, "base+lora")


@pytest.mark.parametrize(
    ("dtype", "said"),
    [
        ("float16", "try out_dtype: bfloat16 or float32"),
        ("bfloat16", r"try smaller weights, or dtype: float64 \(bfloat16 and float32 end at the same numbers\)"),
        ("float32", "try smaller weights, or dtype: float64"),
        ("float64", r"try smaller weights\. "),
    ],
)
def test_an_overflow_is_answered_with_what_has_more_room(here: Path, dtype: str, said: str) -> None:
    write_base(here / "base", extra={"model.norm.weight": np.full(8, 3e38, ml_dtypes.bfloat16)})
    weight = 1e300 if dtype == "float64" else 2.0
    models = [{"model": "base", "parameters": {"weight": weight}}] * 2
    recipe = {"merge_method": "linear", "models": models, "dtype": dtype, "parameters": {"normalize": False}}
    with pytest.raises(PymergeError, match=f"model.norm.weight: .* overflowed in {dtype}; {said}"):
        pymerge.merge(recipe, here / "out")


def test_an_adapter_without_any_tensor_is_refused(here: Path) -> None:
    write_base(here / "base")
    write_adapter(here / "lora", {})
    with pytest.raises(PymergeError, match=r"adapter_model.safetensors: holds no tensor of an adapter; save it again"):
        open_checkpoint(ModelRef("base", lora="lora"))


def test_embeddings_and_heads_alone_may_have_other_rows(here: Path) -> None:
    write_base(here / "base")
    rows = np.ones((30, SHAPE["width"]), np.float32)
    write_adapter(here / "lora", {"model.embed_tokens.weight": rows, "lm_head.weight": rows})
    opened = open_checkpoint(ModelRef("base", lora="lora"))
    assert opened.tensors["lm_head.weight"].shape == opened.tensors["model.embed_tokens.weight"].shape == (30, 8)
    assert opened.config["vocab_size"] == 30


def test_a_pattern_that_regular_expressions_never_end_with_is_read_at_once(here: Path) -> None:
    base = write_base(here / "base")
    write_adapter(here / "lora", FACTORS, alpha_pattern={"(([a-z._0-9])+)+!": 1, r"layers\.\d+\..*": 4})
    name = f"{MODULES[0]}.weight"
    product = FACTORS[f"{MODULES[0]}.lora_B.weight"] @ FACTORS[f"{MODULES[0]}.lora_A.weight"]
    np.testing.assert_allclose(merge(here, "base+lora")[name], base[name] + 2 * product, rtol=1e-5, atol=1e-5)


def test_an_adapter_alone_is_refused_with_the_way_to_name_it(here: Path) -> None:
    write_adapter(here / "lora", {})
    with pytest.raises(PymergeError, match="path/to/adapter"):
        open_checkpoint(ModelRef("lora"))
    write_base(here / "base")
    with pytest.raises(PymergeError, match="an adapter has"):
        open_checkpoint(ModelRef("base", lora="base"))
