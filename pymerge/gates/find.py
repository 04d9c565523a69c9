"""`find_gates`: the rows that a plan left open."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from pymerge.checkpoint import Checkpoint
from pymerge.config.moe import DRAWN, Expert, MoeConfig
from pymerge.errors import FormatError, Problem, RecipeError
from pymerge.gates.embedding import embed
from pymerge.gates.prompts import Prompts
from pymerge.gates.states import States
from pymerge.gates.vectors import DEGENERATE, spread
from pymerge.kernels.common.convert import Array

__all__ = ["Found", "check_available", "find_gates"]

_EMBEDDING = "model.embed_tokens.weight"
#: What each way to find rows takes.
_NEEDS = {
    "cheap_embed": ("tokenizers",),
    "hidden": ("tokenizers", "torch", "transformers"),
    "hidden_avg": ("tokenizers", "torch", "transformers"),
}


@dataclass(frozen=True, slots=True)
class Found:
    """Rows of routers, as plans take them (`Gates` of pymerge/plan/moe/tasks.py).

    Attributes:
        directions: [layers, experts, width] float32; one layer stands for all.
        count: how many of the experts are chosen among; the others always work.
    """

    directions: Array
    count: int
    warnings: tuple[Problem, ...]

    def rows(self, layer: int, *, shared: bool) -> array[float]:
        """Those of a layer's router, or of what weighs the experts that always work; flat."""
        here = self.directions[min(layer, len(self.directions) - 1)]
        return array("f", (here[self.count :] if shared else here[: self.count]).tobytes())


def check_available(config: MoeConfig) -> None:
    """Refuse a way to find rows whose libraries are not there, before anything is read.

    Raises:
        RecipeError: they are not installed.
    """
    if config.gate_mode in DRAWN:
        return
    absent = [name for name in _NEEDS[config.gate_mode] if find_spec(name) is None]
    if absent:
        what = f"gate_mode {config.gate_mode} takes {' and '.join(absent)}, not installed here"
        raise RecipeError([Problem(what, config.gate_where, "pip install 'pymerge[moe]', or gate_mode: random")])


def find_gates(config: MoeConfig, base: Checkpoint) -> Found:
    """Work out the rows of all routers.

    Args:
        config: a document whose gate_mode takes prompts.
        base: its weights must be here.

    Raises:
        FormatError: the tokenizer is damaged, or the base gives what is not finite.
        ResourceError: the base does not fit in memory.
    """
    prompts = Prompts(base)
    if config.gate_mode == "cheap_embed":
        embedding = base.tensors[_EMBEDDING]
        found = [embed(expert, prompts, embedding) for expert in config.everyone]
    else:
        states = States(base, prompts, average=config.gate_mode == "hidden_avg")
        found = [states.find(expert) for expert in config.everyone]
        states.close()
    _check_finite(config.everyone, found, base)
    directions, count = np.stack(found, axis=1), len(config.experts)
    return Found(directions.astype(np.float32), count, _warn(config, directions[:, :count]))


def _check_finite(experts: tuple[Expert, ...], found: Sequence[Array], base: Checkpoint) -> None:
    for expert, rows in zip(experts, found, strict=True):
        if not np.isfinite(rows).all():
            raise FormatError(f'"{base.ref}" gives infinities or NaN for the prompts of the expert "{expert.model}"')


def _warn(config: MoeConfig, rows: Array) -> tuple[Problem, ...]:
    """Warn of routers that tell some experts hardly apart."""
    bad = [layer for layer, each in enumerate(rows) if len(each) > 1 and spread(each) > DEGENERATE]
    if not bad:
        return ()
    everywhere = len(bad) == len(rows)
    layers = "all layers" if everywhere else f"layers {', '.join(map(str, bad))}"
    what = f"degenerate routers in {layers}: rows of different experts point nearly the same way"
    hint = "prompts that differ more, or negative_prompts, tell experts apart"
    return (Problem(what, config.gate_where, hint, tolerable=True),)
