"""A schedule built by hand, for tests of what comes before and after the weights."""

from __future__ import annotations

from pathlib import Path

from pymerge.checkpoint.values import Checkpoint, StoredTensor
from pymerge.config.values import MergeConfig, ModelRef
from pymerge.dtypes import BY_NAME
from pymerge.execute.values import ExecutionReport
from pymerge.methods import get_method
from pymerge.methods.base import Inputs
from pymerge.plan.values import MergePlan, TensorTask
from pymerge.schedule.values import Placement, Resources, Schedule, Shard

RECIPE = "merge_method: linear  # the recipe, verbatim\nmodels: []\n"
EXECUTION = ExecutionReport(
    seconds=2.0,
    cpu_seconds=3.0,
    read=64,
    written=32,
    copied=2,
    shared=0,
    kept=0,
    peak_anonymous=1000,
    peak_resident=2000,
    measure_seconds=1.0,
    fill_seconds=2.0,
    limit="reading",
    direct=False,
)


def make_model(folder: Path, **files: str) -> Checkpoint:
    """A model folder with two tensors; `files` adds more files (`__` stands for a dot)."""
    folder.mkdir(parents=True)
    header = b"{}      "
    weights = folder / "model.safetensors"
    weights.write_bytes(len(header).to_bytes(8, "little") + header + bytes(32))
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    stat = weights.stat()
    f32 = BY_NAME["float32"]
    tensors = {
        name: StoredTensor(name, f32, (4,), str(weights), 16 + 16 * place, 16) for place, name in enumerate("ab")
    }
    return Checkpoint(ModelRef(str(folder)), folder, tensors, {}, ((weights, stat.st_size, stat.st_mtime_ns),))


def make_schedule(*models: Checkpoint, shards: int = 1, nbytes: int = 16, base: bool = True) -> Schedule:
    """Tensor `a` merged linearly, tensor `b` copied; one shard, or one for each."""
    f32 = BY_NAME["float32"]
    count = len(models)
    inputs = Inputs(
        "a", 4, None, tuple(range(count)), {"normalize": True}, {"weight": (1.0,) * count}, tuple(range(count)), 0
    )
    labels = tuple(str(model.ref) for model in models)
    tasks = (
        TensorTask("a", (nbytes // 4,), f32, tuple(model.tensors["a"] for model in models), labels, inputs, f32),
        TensorTask("b", (4,), f32, (models[0].tensors["b"],), labels[:1], None, f32),
    )
    plan = MergePlan(
        config=MergeConfig("linear", text=RECIPE, base_model=models[0].ref if base else None),
        method=get_method("linear"),
        tasks=tasks,
        models=models,
        donor=0,
        model_config={"architectures": ["LlamaForCausalLM"], "torch_dtype": "float32"},
        layers=1,
        seed=7,
    )
    places = [Placement(0, 8, nbytes), Placement(1, 8 + nbytes, 16)]
    if shards == 1:
        laid_out = (Shard("model.safetensors", bytes(8), tuple(places), 24 + nbytes),)
    else:
        laid_out = tuple(
            Shard(f"model-{i + 1:05d}-of-00002.safetensors", bytes(8), (place,), 8 + place.nbytes)
            for i, place in enumerate(places)
        )
    return Schedule(plan, laid_out, Resources(threads=2, memory=1 << 30, block=1 << 20, buffers=4))
