"""Merges by the backend under test, of files and in memory: the CPU backend's bytes."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import toys
import yaml
from execute.merges import METHODS, make_recipe, random_tensors, run, schedule, write_models
from safetensors.numpy import save_file

import pymerge
from pymerge.backends.choice import device_room
from pymerge.bench.device import bench_device
from pymerge.bench.kernels import KERNELS
from pymerge.errors import BackendError, NonFiniteError
from pymerge.execute.lanes import bytes_needed


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four models whose tensors have different element types."""
    return write_models(tmp_path_factory.mktemp("mixed"), [random_tensors(seed) for seed in range(4)])


@pytest.mark.parametrize("method", METHODS)
def test_of_files(tmp_path: Path, mixed: list[Path], backend: str, method: str) -> None:
    made = schedule(make_recipe(method, mixed, dtype="bfloat16"))
    files = [run(made, tmp_path / name, backend=name).files for name in (backend, "cpu")]
    assert files[0] == files[1]


def test_what_a_device_has_no_room_for(tmp_path: Path, mixed: list[Path], backend: str) -> None:
    made = schedule(make_recipe("ties", mixed, dtype="bfloat16"))
    expected = run(made, tmp_path / "cpu", backend="cpu").files
    needs = sorted(bytes_needed(task) for task in made.plan.tasks)
    for name, vram in (("some", 2 * needs[len(needs) // 2]), ("none", 1)):
        done = run(made, tmp_path / name, backend=backend, vram=vram)
        assert done.files == expected
        assert done.report.no_room == sum(need > device_room(vram) for need in needs)


def test_what_is_not_finite_is_found_alike(tmp_path: Path, backend: str) -> None:
    models = [random_tensors(seed, np.float32) for seed in range(2)]
    name, tensor = max(models[1].items(), key=lambda item: item[1].size)
    tensor.flat[[7, -1]] = np.inf
    made = schedule(make_recipe("linear", write_models(tmp_path, models), dtype="float32"))
    told = []
    for each in (backend, "cpu"):
        with pytest.raises(NonFiniteError) as error:
            run(made, tmp_path / f"refused-{each}", backend=each)
        done = run(made, tmp_path / f"allowed-{each}", backend=each, allow_nonfinite=True)
        told.append((str(error.value), done.report.nonfinite))
    assert told[0] == told[1]
    assert told[0][1] == {name: 2}


def test_in_memory(backend: str) -> None:
    torch = pytest.importorskip("torch", reason="the test extra has it")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    values = [torch.from_numpy(np.random.default_rng(i).standard_normal((33, 70)) * 0.02).bfloat16() for i in range(3)]
    there = [value.to(device) for value in values]
    settings = {"weight": 0.6, "density": 0.5}
    for method in ("ties", "dare_ties"):
        got = pymerge.merge_tensors(method, there[1:], base=there[0], parameters=settings, backend=backend)
        expected = pymerge.merge_tensors(method, values[1:], base=values[0], parameters=settings, backend="cpu")
        assert got.device.type == device
        assert torch.equal(got.cpu().view(torch.int16), expected.view(torch.int16))
    got = pymerge.mask(there[0].float(), density=0.3, backend=backend)
    assert torch.equal(got.cpu(), pymerge.mask(values[0].float(), density=0.3))


def test_state_dicts(backend: str) -> None:
    torch = pytest.importorskip("torch", reason="the test extra has it")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    models = [
        {"weight": torch.full((5, 7), i + 0.5, device=device), "steps": torch.arange(4, device=device)}
        for i in range(2)
    ]
    merged = pymerge.merge_state_dicts("linear", models, parameters={"weight": 1.0}, backend=backend)
    assert merged["weight"].device.type == device
    assert torch.equal(merged["weight"], torch.full((5, 7), 1.0, device=device))
    assert torch.equal(merged["steps"], models[0]["steps"])
    if device != "cpu":
        with pytest.raises(BackendError, match=r"move them with \.cpu\(\)"):
            pymerge.merge_state_dicts("linear", models, parameters={"weight": 1.0}, backend="cpu")


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_bench_times_every_kernel(backend: str, kernel: str) -> None:
    rows = list(bench_device(backend, [kernel], dtypes=["bf16"], models=[2], sizes=[2048], rounds=1))
    assert rows
    for row in rows:
        assert row["kernel"] == kernel
        assert row["rate"] > 0
        assert row["share"] == pytest.approx(row["rate"] / row["yardstick_rate"])


def test_what_is_derived_while_it_is_read(tmp_path: Path, backend: str) -> None:
    names = ("base", "math", "code")
    for seed, name in enumerate(names):
        toys.write_llama(tmp_path / name, seed=seed, layers=1, width=16, vocabulary=40, dtype=ml_dtypes.bfloat16)
    base, math, code = (str(tmp_path / name) for name in names)
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {f"{module}.lora_{side}.weight": np.full((3, 16)[:: 1 if side == "A" else -1], 0.05) for side in "AB"}
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "lora_alpha": 6}')
    save_file(
        {name: factor.astype(np.float32) for name, factor in factors.items()}, adapter / "adapter_model.safetensors"
    )
    listed = [{"model": model, "parameters": {"weight": 0.5, "density": 0.6}} for model in (f"{math}+{adapter}", code)]
    stage = {"name": "stage", "merge_method": "ties", "base_model": base, "models": listed, "dtype": "bfloat16"}
    last = {"merge_method": "slerp", "base_model": "stage", "models": [{"model": f"{code}+{adapter}"}]}
    recipe = "---\n".join(
        yaml.safe_dump(part) for part in (stage, {**last, "parameters": {"t": 0.3}, "dtype": "bfloat16"})
    )
    for name in (backend, "cpu"):
        pymerge.merge(recipe, tmp_path / f"by-{name}", backend=name)
    made = [(tmp_path / f"by-{name}" / "model.safetensors").read_bytes() for name in (backend, "cpu")]
    assert made[0] == made[1]


def test_a_mixture_whose_experts_have_noise(tmp_path: Path, backend: str) -> None:
    width = {"hidden_size": 16, "intermediate_size": 48, "num_attention_heads": 4}
    for seed, name in enumerate(("one", "two")):
        toys.write_llama(tmp_path / name, seed=seed, layers=1, width=16, dtype=ml_dtypes.bfloat16, config=width)
    one, two = ({"source_model": str(tmp_path / name), "noise_scale": 0.1} for name in ("one", "two"))
    document = {
        "base_model": str(tmp_path / "one"),
        "gate_mode": "random",
        "experts": [{**one, "residual_scale": 0.5}, two],
        "shared_experts": [two],
        "dtype": "float16",
    }
    for name in (backend, "cpu"):
        pymerge.moe(document, tmp_path / f"by-{name}", backend=name)
    made = [(tmp_path / f"by-{name}" / "model.safetensors").read_bytes() for name in (backend, "cpu")]
    assert made[0] == made[1]
