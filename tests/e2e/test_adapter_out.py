"""Merges whose result is an adapter: exactly the sum of the products, as PEFT and pymerge read it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

import pymerge
from pymerge.cli import app
from pymerge.errors import PymergeError

MODULES = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj", "model.layers.1.self_attn.k_proj")
PREFIX = "base_model.model."
Tensors = dict[str, np.ndarray]


def write_base(folder: Path, **changes: Any) -> Tensors:
    toys.write_llama(folder, dtype=ml_dtypes.bfloat16, **{"layers": 2, "width": 8, "vocabulary": 24, **changes})
    return {name: tensor.astype(np.float64) for name, tensor in load_file(folder / "model.safetensors").items()}


def write_adapter(folder: Path, tensors: Tensors, **changes: Any) -> None:
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "lora_alpha": 8, "target_modules": [], **changes}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({PREFIX + name: tensor for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")


def make_factors(module: str, shape: tuple[int, ...], rank: int, seed: int, dtype: Any = np.float32) -> Tensors:
    random = np.random.default_rng(seed)
    return {
        f"{module}.lora_A.weight": random.standard_normal((rank, shape[1])).astype(dtype),
        f"{module}.lora_B.weight": random.standard_normal((shape[0], rank)).astype(dtype),
    }


def write_two(here: Path) -> Tensors:
    """A base, and adapters x and y on it, of which y has one module alone."""
    base = write_base(here / "base")
    for number, (name, modules) in enumerate((("x", MODULES[:2]), ("y", MODULES[1:]))):
        tensors: Tensors = {}
        for module in modules:
            tensors |= make_factors(module, base[f"{module}.weight"].shape, 2 + number, number)
        write_adapter(here / name, tensors)
    return base


def add(here: Path, weights: dict[str, Any], method: str = "task_arithmetic", **more: Any) -> dict[str, Any]:
    """A recipe of adapters of the one base, by name."""
    models = [{"model": f"{here / 'base'}+{here / name}", "parameters": {"weight": w}} for name, w in weights.items()]
    base = {"base_model": str(here / "base")} if method != "linear" else {}
    return {"merge_method": method, "models": models, **base, **more}


def read_out(folder: Path) -> Tensors:
    return {name.removeprefix(PREFIX): t for name, t in load_file(folder / "adapter_model.safetensors").items()}


def peft_adapters(base: Path, here: Path, cases: list[dict[str, Any]]) -> Iterator[Tensors]:
    """Adapters 0, 1, ... saved by PEFT; yields the weights of the base with each of them."""
    import peft
    import torch
    import transformers

    for number, case in enumerate(cases):
        torch.manual_seed(number)
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        tuned = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **case))
        with torch.no_grad():
            for name, parameter in tuned.named_parameters():
                if "lora_" in name or "modules_to_save" in name:
                    parameter.copy_(torch.randn_like(parameter) / 8)
        tuned.save_pretrained(here / str(number))
        state = tuned.merge_and_unload().state_dict()
        yield {name: tensor.numpy().astype(np.float64) for name, tensor in state.items()}


PEFT_CASES: list[tuple[str, list[dict[str, Any]]]] = [
    (
        "llama",
        [
            {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj", "embed_tokens"]},
            {"r": 3, "lora_alpha": 5, "use_rslora": True, "target_modules": ["embed_tokens", "q_proj", "o_proj"],
             "rank_pattern": {"o_proj": 6}, "alpha_pattern": {"layers.1.self_attn.q_proj": 9}},
        ],
    ),
    (
        "llama",
        [
            {"r": 2, "target_modules": ["gate_proj"], "modules_to_save": ["lm_head", "norm"]},
            {"r": 2, "target_modules": ["gate_proj", "lm_head"]},
        ],
    ),
    ("gpt2", [{"r": rank, "lora_alpha": 6, "target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}
              for rank in (3, 2)]),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("family", "cases"), PEFT_CASES)
def test_peft_makes_the_sum_of_all_adapters_of_it(
    family: str, cases: list[dict[str, Any]], toy: Callable[..., Path], here: Path
) -> None:
    import peft
    import torch
    import transformers

    base, weights = toy(family), (0.75, -0.5)

    def load() -> Any:
        return transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()

    expected_model = load()
    start = {name: tensor.numpy().astype(np.float64) for name, tensor in expected_model.state_dict().items()}
    adapted = list(peft_adapters(base, here, cases))
    expected = {
        name: tensor + sum(w * (each[name] - tensor) for w, each in zip(weights, adapted, strict=True))
        for name, tensor in start.items()
    }
    models = [{"model": f"{base}+{n}", "parameters": {"weight": w}} for n, w in enumerate(weights)]
    recipe = {"merge_method": "task_arithmetic", "base_model": str(base), "models": models, "dtype": "float32"}
    pymerge.merge(recipe, here / "out", out_format="adapter")
    loaded = peft.PeftModel.from_pretrained(load(), here / "out")
    expected_model.load_state_dict({name: torch.from_numpy(t.astype(np.float32)) for name, t in expected.items()})
    tokens = torch.arange(3, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens).logits, expected_model(tokens).logits, rtol=1e-4, atol=1e-4)
    for name, tensor in loaded.merge_and_unload().state_dict().items():
        np.testing.assert_allclose(tensor.numpy(), expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_factors_stand_beside_each_other_rounded_once(tmp_path_factory: Any, data: st.DataObject) -> None:
    here = tmp_path_factory.mktemp("factors")
    base = write_base(here / "base")
    dtypes = st.sampled_from((np.float32, ml_dtypes.bfloat16, np.float16))
    kind = data.draw(st.sampled_from((None, "float32", "bfloat16")))
    kinds, terms, weights = [], {module: [] for module in MODULES}, {}
    for number in range(data.draw(st.integers(1, 3))):
        name, dtype = f"lora{number}", data.draw(dtypes)
        # Each adapter has a module of its own at least.
        chosen = {MODULES[number], *data.draw(st.sets(st.sampled_from(MODULES)))}
        stabilized, alpha = data.draw(st.booleans()), data.draw(st.sampled_from((1, 7, 16.5)))
        weights[name] = data.draw(st.sampled_from((1.0, 0.3, -1.7)))
        tensors: Tensors = {}
        for place, module in enumerate(sorted(chosen)):
            rank = data.draw(st.integers(1, 6))
            factors = make_factors(module, base[f"{module}.weight"].shape, rank, 10 * number + place, dtype)
            scale = alpha / (np.sqrt(rank) if stabilized else rank)
            terms[module].append((np.float32(weights[name] * scale), *factors.values()))
            tensors |= factors
            kinds.append(np.dtype(dtype))
        write_adapter(here / name, tensors, use_rslora=stabilized, lora_alpha=alpha)
    recipe = add(here, weights, **({"dtype": kind} if kind else {}))
    pymerge.merge(recipe, here / "out", out_format="adapter")
    out, config = read_out(here / "out"), json.loads((here / "out" / "adapter_config.json").read_text())
    used = {module: parts for module, parts in terms.items() if parts}
    assert out.keys() == {f"{module}.lora_{side}.weight" for module in used for side in "AB"}
    for module, parts in used.items():
        a, b = out[f"{module}.lora_A.weight"], out[f"{module}.lora_B.weight"]
        if kind:
            assert a.dtype == b.dtype == np.dtype({"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}[kind])
        np.testing.assert_array_equal(a, np.concatenate([p[1].astype(np.float32) for p in parts]).astype(a.dtype))
        scaled = np.concatenate([c * p.astype(np.float32) for c, _, p in parts], axis=1)
        np.testing.assert_array_equal(b, scaled.astype(b.dtype))
        rank = len(a)
        assert config["rank_pattern"].get(module, config["r"]) == rank
        assert config["alpha_pattern"].get(module, config["lora_alpha"]) == rank


@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_the_base_with_it_is_the_merge_of_the_models(tmp_path_factory: Any, data: st.DataObject) -> None:
    here = tmp_path_factory.mktemp("sum")
    write_two(here)
    method = data.draw(st.sampled_from(("linear", "task_arithmetic", "dare_linear")))
    gradient = [0.2, 1.5]
    weights = {"x": data.draw(st.sampled_from((0.5, 2.0, gradient))), "y": data.draw(st.sampled_from((0.25, gradient)))}
    more = {} if method == "linear" else {"parameters": {"lambda": 0.5}}
    recipe = add(here, weights, method, dtype="float32", **more)
    pymerge.merge(recipe, here / "whole")
    pymerge.merge(recipe, here / "out", out_format="adapter")
    alone = [{"model": f"{here / 'base'}+{here / 'out'}", "parameters": {"weight": 1.0}}]
    pymerge.merge({"merge_method": "linear", "models": alone, "dtype": "float32"}, here / "back")
    whole, back = (load_file(here / name / "model.safetensors") for name in ("whole", "back"))
    for name, tensor in whole.items():
        np.testing.assert_allclose(back[name], tensor, rtol=1e-6, atol=1e-5, err_msg=name)


def test_a_saved_module_is_merged_with_the_base_of_those_that_did_not_save_it(here: Path) -> None:
    base = write_base(here / "base")
    factors = make_factors(MODULES[0], base[f"{MODULES[0]}.weight"].shape, 2, 0)
    write_adapter(here / "x", {**factors, "model.norm.weight": np.full(8, 3.0, np.float32)}, modules_to_save=["norm"])
    write_adapter(here / "y", factors)
    pymerge.merge(add(here, {"x": 1, "y": 3}, "linear", dtype="float32"), here / "out", out_format="adapter")
    norm = read_out(here / "out")["model.norm.weight"]
    np.testing.assert_allclose(norm, 0.25 * 3.0 + 0.75 * base["model.norm.weight"], rtol=1e-6)
    assert json.loads((here / "out" / "adapter_config.json").read_text())["modules_to_save"] == ["model.norm"]


def test_a_base_that_was_adapted_itself_counts_by_what_is_left_of_it(here: Path) -> None:
    write_two(here)
    recipe = add(here, {"x": 0.25}, dtype="float32") | {"base_model": f"{here / 'base'}+{here / 'y'}"}
    pymerge.merge(recipe, here / "out", out_format="adapter")
    out, y = read_out(here / "out"), read_out(here / "y")
    name = f"{MODULES[2]}.lora_B.weight"
    np.testing.assert_array_equal(out[name], np.float32(0.75 * 8 / 3) * y[name])


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"merge_method": "ties", "parameters": {"density": 0.5}}, "no weighted sum of the models .* extract-lora"),
    ({"merge_method": "dare_linear", "parameters": {"density": 0.5}}, "no weighted sum"),
    ({"merge_method": "linear", "base_model": None, "parameters": {"normalize": False}}, "sum to 1.25, .* task_arithm"),
    ({"parameters": {"lambda": 0}}, "no factors are left"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSALS)
def test_what_no_adapter_can_be_is_refused_before_anything_is_written(
    changes: dict[str, Any], message: str, here: Path
) -> None:
    write_two(here)
    recipe = {key: value for key, value in (add(here, {"x": 1, "y": 0.25}) | changes).items() if value is not None}
    with pytest.raises(PymergeError, match=message):
        pymerge.merge(recipe, here / "out", out_format="adapter")
    assert not (here / "out").exists()


def test_adapters_of_two_bases_are_refused_by_name(here: Path) -> None:
    write_two(here)
    write_base(here / "other")
    recipe = add(here, {"x": 1})
    recipe["models"].append({"model": f"{here / 'other'}+{here / 'y'}", "parameters": {"weight": 1}})
    with pytest.raises(PymergeError, match=r'other\+.*" is not ".*base" with an adapter'):
        pymerge.merge(recipe, here / "out", out_format="adapter")


def test_factors_that_overflow_stop_the_merge_by_name(here: Path) -> None:
    write_two(here)
    with pytest.raises(PymergeError, match=r"q_proj\.lora_B\.weight: .* overflowed in float16"):
        pymerge.merge(add(here, {"x": 1e6}, dtype="float16"), here / "out", out_format="adapter")


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "int8"])
@pytest.mark.parametrize("options", [{}, {"out_format": "adapter"}])
def test_factors_that_are_no_plain_numbers_are_refused_before_a_weight_is_read(
    kind: str, options: dict[str, Any], here: Path
) -> None:
    base = write_two(here)
    dtype = getattr(ml_dtypes, kind, kind)
    write_adapter(here / "z", make_factors(MODULES[0], base[f"{MODULES[0]}.weight"].shape, 2, 0, dtype))
    with pytest.raises(PymergeError, match=rf"{PREFIX}{MODULES[0]}.lora_A.weight\" is {kind}, .* convert"):
        pymerge.plan(add(here, {"x": 1, "z": 1}))
    with pytest.raises(PymergeError, match=kind):
        pymerge.merge(add(here, {"x": 1, "z": 1}), here / "out", **options)
    assert not (here / "out").exists()


def test_every_backend_gives_the_same_bytes(here: Path) -> None:
    write_two(here)
    for backend in ("cpu", "reference"):
        recipe = add(here, {"x": 0.3, "y": -2.7}, dtype="bfloat16")
        pymerge.merge(recipe, here / backend, out_format="adapter", backend=backend)
    files = [(here / backend / "adapter_model.safetensors").read_bytes() for backend in ("cpu", "reference")]
    assert files[0] == files[1]


def test_layers_in_another_order_are_refused(here: Path) -> None:
    write_two(here)
    sources = [{"model": str(here / "base"), "layer_range": [0, 2]}, {"model": "base+x", "layer_range": [0, 2]}]
    recipe = {"merge_method": "task_arithmetic", "base_model": str(here / "base"), "slices": [{"sources": sources}]}
    recipe["parameters"] = {"weight": 1.0}
    with pytest.raises(PymergeError, match="a recipe of slices makes a model, not an adapter"):
        pymerge.merge(recipe, here / "out", out_format="adapter")


def test_a_merge_goes_on_and_replaces_only_when_told(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pymerge.output.adapter as output

    write_two(here)
    recipe, full = add(here, {"x": 1, "y": 0.25}), OSError("stopped")
    with monkeypatch.context() as patch:
        patch.setattr(output, "make_adapter_card", lambda *_: (_ for _ in ()).throw(full))
        with pytest.raises(OSError, match="stopped"):
            pymerge.merge(recipe, here / "out", out_format="adapter")
    assert not (here / "out" / "adapter_config.json").exists()
    report = pymerge.merge(recipe, here / "out", out_format="adapter")
    assert report.execution.kept > 0
    assert sorted(path.name for path in (here / "out").iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "mergekit_config.yml", "pymerge_manifest.json",
    ]  # fmt: skip
    with pytest.raises(PymergeError, match=r"is not empty .* --overwrite"):
        pymerge.merge(recipe, here / "out", out_format="adapter")
    pymerge.merge(add(here, {"x": 1}), here / "out", out_format="adapter", overwrite=True)
    assert f"{MODULES[2]}.lora_A.weight" not in read_out(here / "out")
    with pytest.raises(PymergeError, match="is of the input"):
        pymerge.merge(recipe, here / "x", out_format="adapter", overwrite=True)


def test_the_command_plans_and_makes_it_and_warns_of_ranks_beyond_the_matrix(here: Path) -> None:
    base = write_base(here / "base")
    for number in range(2):
        write_adapter(here / str(number), make_factors(MODULES[0], base[f"{MODULES[0]}.weight"].shape, 5, number))
    (here / "recipe.yml").write_text(json.dumps(add(here, {"0": 1, "1": 1})))
    for more in (["--dry-run"], []):
        done = CliRunner().invoke(app, ["merge", "recipe.yml", "out", "--out-format", "adapter", *more])
        assert done.exit_code == 0, done.output
        assert "above the rank that a matrix can have in 1 modules" in done.output
    assert read_out(here / "out")[f"{MODULES[0]}.lora_A.weight"].shape == (10, 8)
