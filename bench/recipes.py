"""The merges that are timed: recipe and target of each, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymerge.methods import method_names

from .checkpoints import NAMES

__all__ = ["METHODS", "Merge", "choose", "make_recipe"]


@dataclass(frozen=True, slots=True)
class Merge:
    """One timed merge.

    Attributes:
        method: the recipe's merge_method.
        target: wall time over the floor's that it should not exceed.
        tuned: fine-tunes that it reads.
        base: True if the recipe names the base model as such, not as one among its models.
        sliced: True if models come as layer ranges.
        each, once: parameters per model, and of the merge.
    """

    method: str
    target: float
    tuned: int = 1
    base: bool = False
    sliced: bool = False
    each: Mapping[str, Any] = field(default_factory=dict)
    once: Mapping[str, Any] = field(default_factory=dict)


_WEIGHT = {"weight": 0.4}
_SPARSE = {"weight": 0.4, "density": 0.5}

#: Name on the command line and in results: what is run. Those of methods that this version lacks wait.
METHODS = {
    "passthrough": Merge("passthrough", 1.0, tuned=0),
    "linear": Merge("linear", 0.9, each=_WEIGHT),
    "slerp": Merge("slerp", 0.95, sliced=True, once={"t": [0.1, 0.5, 0.9]}),
    "nuslerp": Merge("nuslerp", 1.1, each=_WEIGHT),
    "nuslerp-rows": Merge("nuslerp", 1.1, each=_WEIGHT, once={"nuslerp_flatten": False}),
    "multislerp": Merge("multislerp", 1.1, each=_WEIGHT),
    "karcher": Merge("karcher", 1.1),
    "model_stock": Merge("model_stock", 1.1, tuned=2, base=True),
    "model_stock-rows": Merge("model_stock", 1.1, tuned=2, base=True, once={"filter_wise": True}),
    "task_arithmetic": Merge("task_arithmetic", 0.9, tuned=2, base=True, each=_WEIGHT),
    "ties": Merge("ties", 1.3, tuned=2, base=True, each=_SPARSE),
    "ties-3": Merge("ties", 1.3, tuned=3, base=True, each=_SPARSE),
    "dare_linear": Merge("dare_linear", 0.95, tuned=2, base=True, each=_SPARSE),
    "dare_ties": Merge("dare_ties", 0.95, tuned=2, base=True, each=_SPARSE),
    "della": Merge("della", 2.0, tuned=2, base=True, each=_SPARSE),
    "della_linear": Merge("della_linear", 2.0, tuned=2, base=True, each=_SPARSE),
    "breadcrumbs": Merge("breadcrumbs", 2.0, tuned=2, base=True, each=_SPARSE),
    "nearswap": Merge("nearswap", 2.0, base=True, once={"t": 0.001}),
    "arcee_fusion": Merge("arcee_fusion", 2.0, base=True),
    "breadcrumbs_ties": Merge("breadcrumbs_ties", 2.0, tuned=2, base=True, each=_SPARSE),
    "ties-count": Merge("ties", 2.0, tuned=2, base=True, each=_SPARSE, once={"consensus": "count"}),
    "sce": Merge("sce", 2.0, tuned=2, base=True, once={"select_topk": 0.1}),
    "ties-global": Merge("ties", 2.0, tuned=2, base=True, each=_SPARSE, once={"trim_scope": "global"}),
    "emr": Merge("emr", 2.0, tuned=2, base=True),
    "magmax": Merge("magmax", 2.0, tuned=2, base=True),
    "ram": Merge("ram", 2.0, tuned=2, base=True),
    "ramplus_tl": Merge("ramplus_tl", 2.0, tuned=2, base=True),
}


def choose(names: str | None) -> list[str]:
    """The merges that a comma-separated list names; None: all that this version can run.

    Raises:
        ValueError: there is none of that name; the message lists those there are.
    """
    known = [name for name, merge in METHODS.items() if merge.method in method_names()]
    wanted = known if names is None else [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known:
            raise ValueError(f"no benchmark is called {name!r}; there are: {', '.join(known)}")
    return wanted


def models_needed(names: Iterable[str]) -> int:
    """How many models, the base included, the merges read at most."""
    return 1 + max(METHODS[name].tuned for name in names)


def make_recipe(name: str, models: list[Path], layers: int, dtype: str) -> tuple[dict[str, Any], list[Path]]:
    """The recipe of one of `METHODS`, and the models that it reads.

    Args:
        models: the base first, then its fine-tunes.
        layers: of each model.
        dtype: short name of the inputs' and the output's dtype.
    """
    merge = METHODS[name]
    base, tuned = models[0], models[1 : 1 + merge.tuned]
    listed = tuned if merge.base else [base, *tuned]
    entries: list[dict[str, Any]] = [{"model": str(model)} for model in listed]
    if merge.each:
        entries = [{**entry, "parameters": dict(merge.each)} for entry in entries]
    recipe: dict[str, Any] = {"merge_method": merge.method, "dtype": NAMES[dtype]}
    if merge.sliced:
        recipe["slices"] = [{"sources": [{**entry, "layer_range": [0, layers]} for entry in entries]}]
    else:
        recipe["models"] = entries
    if merge.base or merge.sliced:
        recipe["base_model"] = str(base)
    if merge.once:
        recipe["parameters"] = dict(merge.once)
    return recipe, [base, *tuned]
