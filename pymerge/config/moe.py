"""The document of a mixture of experts in memory: frozen values that mirror the YAML, each knowing its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pymerge.config.values import Input, MergeConfig, ModelRef
from pymerge.dtypes import DType
from pymerge.errors import Location, Problem

__all__ = ["DRAWN", "GATE_MODES", "MOE", "Expert", "MoeConfig"]

#: What stands in the place of a merge method's name.
MOE = "moe"
#: Where rows of routers come from: states of the base at prompts' last tokens, their mean over all tokens, sums of
#: embeddings, draws.
GATE_MODES = ("hidden", "hidden_avg", "cheap_embed", "uniform_random", "random")
#: Those that need no prompts.
DRAWN = ("uniform_random", "random")


@dataclass(frozen=True, slots=True)
class Expert:
    """One expert as the document gives it.

    Attributes:
        positive, negative: prompts that its rows of the routers point to, and away from.
        noise: standard deviation of what is added to its weights; 0 for nothing.
        residual: factor on what it adds to the residual stream.
    """

    model: ModelRef
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    noise: float = 0.0
    residual: float = 1.0
    where: Location | None = None


@dataclass(frozen=True, slots=True)
class MoeConfig:
    """A whole document.

    Attributes:
        base_model: gives everything but experts and routers, and the states of prompts.
        gate_mode: one of `GATE_MODES`.
        dtype: of the output; None for the base's.
        per_token: how many experts the router chooses.
        architecture: the beginning of a name of the output's architecture; None to choose.
        text: the YAML, verbatim; name: of the file, for messages.
        gate_where: the place of gate_mode; count_where: of experts_per_token; kind_where: of architecture.
        warnings: tolerated problems found while reading.
    """

    base_model: ModelRef
    experts: tuple[Expert, ...]
    shared: tuple[Expert, ...] = ()
    gate_mode: str = "hidden"
    dtype: DType | None = None
    per_token: int = 2
    architecture: str | None = None
    text: str = ""
    name: str = "<recipe>"
    gate_where: Location | None = None
    count_where: Location | None = None
    kind_where: Location | None = None
    warnings: tuple[Problem, ...] = ()

    @property
    def everyone(self) -> tuple[Expert, ...]:
        """Experts that are chosen, then those that always work."""
        return (*self.experts, *self.shared)

    @property
    def recipe(self) -> MergeConfig:
        """The same as far as a merge's recipe can say it: which models there are, and the text."""
        return MergeConfig(
            merge_method=MOE,
            models=tuple(Input(expert.model, where=expert.where) for expert in self.everyone),
            base_model=self.base_model,
            dtype=self.dtype,
            text=self.text,
            name=self.name,
            warnings=self.warnings,
        )

    def map_references(self, move: Callable[[ModelRef], ModelRef]) -> MoeConfig:
        """The same, with other models in place of those that are named."""

        def move_all(experts: tuple[Expert, ...]) -> tuple[Expert, ...]:
            return tuple(replace(expert, model=move(expert.model)) for expert in experts)

        base = move(self.base_model)
        return replace(self, base_model=base, experts=move_all(self.experts), shared=move_all(self.shared))
