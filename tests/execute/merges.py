"""Small merges of random checkpoints, planned as users plan them, with the executor's settings in the test's hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import toys

import pymerge
from pymerge import _core
from pymerge.execute import ExecutionReport, checkpoints, execute, feeders, flow
from pymerge.schedule import Schedule, budget, make_schedule

Tensors = Mapping[str, np.ndarray]

#: Method (and variant) -> (models besides the base, base or not, parameters of the recipe, of each model).
METHODS: dict[str, tuple[int, bool, dict[str, Any], dict[str, Any]]] = {
    "linear": (3, False, {}, {"weight": 0.7}),
    "slerp": (1, True, {"t": 0.3}, {}),
    "nuslerp": (2, True, {}, {"weight": 0.7}),
    "nuslerp-rows": (2, True, {"nuslerp_flatten": False}, {"weight": 0.7}),
    "nuslerp-columns": (2, False, {"nuslerp_flatten": False, "nuslerp_row_wise": True}, {"weight": 0.7}),
    "multislerp": (3, True, {}, {"weight": 0.7}),
    "karcher": (3, False, {}, {}),
    "task_arithmetic": (2, True, {"lambda": 0.9}, {"weight": 0.6}),
    "ties": (2, True, {}, {"weight": 0.6, "density": 0.5}),
    "dare_linear": (2, True, {}, {"weight": 0.6, "density": 0.4}),
    "dare_ties": (2, True, {}, {"weight": 0.6, "density": 0.4}),
    "della": (2, True, {}, {"weight": 0.6, "density": 0.4, "epsilon": 0.2}),
    "della_linear": (2, True, {}, {"weight": 0.6, "density": 0.4, "epsilon": 0.2}),
    "breadcrumbs": (2, True, {}, {"weight": 0.6, "density": 0.7, "gamma": 0.1}),
    "breadcrumbs_ties": (2, True, {"consensus": "count"}, {"weight": 0.6, "density": 0.7, "gamma": 0.1}),
    "emr": (3, True, {"lambda": 0.8}, {"weight": 0.7}),
    "magmax": (3, True, {}, {}),
    "ties-global": (2, True, {"trim_scope": "global"}, {"weight": 0.6, "density": 0.5}),
    "breadcrumbs-layer": (2, True, {"trim_scope": "layer"}, {"weight": 0.6, "density": 0.7, "gamma": 0.1}),
    "ties-votes": (3, True, {"election": "unweighted", "rescale": "l2"}, {"weight": 0.6, "density": 0.5}),
    "sce": (3, True, {"select_topk": 0.4}, {}),
    "ram": (3, True, {"epsilon": 0.01}, {}),
    "ramplus_tl": (3, True, {"epsilon": 0.01}, {}),
    "nearswap": (1, True, {"t": 0.01}, {}),
    "model_stock": (2, True, {}, {}),
    "model_stock-rows": (2, True, {"filter_wise": True}, {}),
    "arcee_fusion": (1, True, {}, {}),
    "passthrough": (1, False, {"scale": 0.8}, {}),
}

#: Sizes around the edges of lanes, canonical blocks and output blocks; nothing that divides anything.
SHAPES: dict[str, tuple[int, ...]] = {
    "embed": (331, 37),
    "empty": (0, 8),
    "layers.0.bias": (1,),
    "layers.0.weight": (1024, 3),
    "layers.1.bias": (31,),
    "layers.1.weight": (127, 129),
    "scalar": (),
    "z_empty": (3, 0),
}
_CYCLE = (np.float32, ml_dtypes.bfloat16, np.float16)


def random_tensors(seed: int, dtype: Any = None) -> dict[str, np.ndarray]:
    """All SHAPES, near a common origin; the element types vary by model and tensor unless `dtype` is given."""
    origin, own = np.random.default_rng(0), np.random.default_rng(seed + 1)
    tensors = {}
    for place, (name, shape) in enumerate(SHAPES.items()):
        values = origin.standard_normal(shape) * 0.05 + own.standard_normal(shape) * 0.02
        tensors[name] = np.asarray(values, dtype or _CYCLE[(place + seed) % len(_CYCLE)])
    return tensors


def write_models(folder: Path, models: Sequence[Tensors]) -> list[Path]:
    """One checkpoint per mapping of tensors; the first is the base."""
    return [
        toys.write_checkpoint(folder / f"model{place}", tensors, {"model_type": "toy", "num_hidden_layers": 2})
        for place, tensors in enumerate(models)
    ]


def make_recipe(method: str, folders: Sequence[Path], **changes: Any) -> dict[str, Any]:
    """A recipe for `method`; `changes` are more of its keys."""
    count, based, shared, each = METHODS[method]
    listed = [*folders[:1], *folders[1 : 1 + count]] if method == "slerp" else folders[based : based + count]
    recipe: dict[str, Any] = {
        "merge_method": method.partition("-")[0],
        "models": [{"model": str(folder), "parameters": dict(each)} for folder in listed],
        "parameters": dict(shared),
    }
    if based:
        recipe["base_model"] = str(folders[0])
    return {key: value for key, value in {**recipe, **changes}.items() if value}


def schedule(recipe: Mapping[str, Any], *, shard_size: int = 0, lenient: bool = False, **resources: int) -> Schedule:
    """Plan a recipe; `resources` (threads, block, buffers) replace what the budget would choose."""
    made = make_schedule(pymerge.plan(recipe, lenient=lenient), shard_size=shard_size, threads=2)
    settings = {"block": 4096, "buffers": 4, **resources}
    return replace(made, resources=replace(made.resources, **settings))


@dataclass(frozen=True)
class Output:
    """What a merge left: its report and the bytes of each file."""

    report: ExecutionReport
    files: dict[str, bytes]


def run(made: Schedule, folder: Path, **options: Any) -> Output:
    """Execute into a new folder."""
    folder.mkdir()
    report = execute(made, folder, **options)
    return Output(report, {path.name: path.read_bytes() for path in sorted(folder.iterdir())})


def merge_arrays(folder: Path, method: str, models: Sequence[Tensors], **options: Any) -> Output:
    """Write `models` (base first where there is one), merge them with float32 output, return what came out."""
    folders = write_models(folder, models)
    return run(schedule(make_recipe(method, folders, dtype="float32")), folder / "out", **options)


def levels() -> list[Any]:
    """Every instruction-set level as a test parameter; those that cannot run here are skipped with the reason."""
    return [
        pytest.param(name, marks=[] if usable else pytest.mark.skip(f"needs ISA {name}"))
        for name, usable in _core.isa_levels()
    ]


@contextmanager
def forced(level: str) -> Iterator[None]:
    """One instruction-set level, in force inside."""
    before = _core.active_isa()
    _core.force_isa(level)
    try:
        yield
    finally:
        _core.force_isa(before)


def wait_for(engine: _core.Engine, *, shards: int) -> None:
    """Wait until so many files are finished; raises what a worker raised."""
    while engine.status()["shards_finished"] < shards:
        engine.wait(1.0)


def take_small_steps(patch: pytest.MonkeyPatch) -> None:
    """Have merges of kilobytes looked at, recorded and stopped as often as those of gigabytes."""
    patch.setattr(checkpoints, "EVERY", 0.005)
    patch.setattr(budget, "_LARGE_BLOCKS", (4096,))
    patch.setattr(flow, "_AHEAD", 8192)
    patch.setattr(feeders.StreamFeeder, "ahead", 8192)
    patch.setattr(flow, "_POLL", 0.0001)
    patch.setattr(flow, "_PROGRESS_EVERY", 0.0)
