"""Every tensor of a mixture, and what it is made of."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from pymerge.checkpoint import Checkpoint, Source
from pymerge.checkpoint.sources import Given, Noise
from pymerge.config.moe import DRAWN, Expert, MoeConfig
from pymerge.config.values import ModelRef
from pymerge.dtypes import BY_NAME, DType
from pymerge.errors import Problem
from pymerge.methods.base import Inputs
from pymerge.plan.moe.families import LOOSE, MLP, Family, name_in_layer
from pymerge.plan.values import TensorTask

__all__ = ["Gates", "TaskMaker"]

_FLOAT32, _FLOAT64 = BY_NAME["float32"], BY_NAME["float64"]


class Gates(Protocol):
    """Rows of routers that were worked out from prompts.

    Attributes:
        warnings: what the user should know of them.
    """

    @property
    def warnings(self) -> tuple[Problem, ...]: ...

    def rows(self, layer: int, *, shared: bool) -> array[float]:
        """float32 [experts, width], flat: of a layer's router, or of what weighs the experts that always work."""
        ...


@dataclass(frozen=True, slots=True)
class TaskMaker:
    """Makes the tasks of one mixture, whose models have passed all checks.

    Attributes:
        gates: None leaves open what comes of prompts.
    """

    config: MoeConfig
    models: Mapping[ModelRef, Checkpoint]
    family: Family
    layers: int
    dtype: DType
    seed: int
    gates: Gates | None = None

    def make(self) -> tuple[TensorTask, ...]:
        """All tasks, sorted by name."""
        tasks = [*self._keep()]
        for layer in range(self.layers):
            tasks += self._make_group(layer, self.config.experts, self.family.router, self.family.expert)
            if self.config.shared:
                shared = self.config.shared
                tasks += self._make_group(layer, shared, self.family.shared_router, self.family.shared_expert)
        return tuple(sorted(tasks, key=lambda task: task.name))

    def _keep(self) -> Iterator[TensorTask]:
        """What the base gives, and zeros in the place of what it lacks."""
        base, label = self.models[self.config.base_model], str(self.config.base_model)
        inside = [name_in_layer(layer, rest) for layer in range(self.layers) for rest in self.family.kept]
        for name in (*LOOSE, *inside):
            if name in base.tensors:
                yield self._copy(name, base.tensors[name], label)
        rows: dict[str, Given] = {}
        for name in (name_in_layer(layer, rest) for layer in range(self.layers) for rest in self.family.zeros):
            if name not in base.tensors:
                weight = base.tensors[name.removesuffix("bias") + "weight"]
                kind = name.split(".")[-2]
                if kind not in rows:
                    rows[kind] = Given("zeros", weight.shape[:1], array("f", bytes(4 * weight.shape[0])))
                yield self._copy(name, rows[kind], "zeros")

    def _make_group(self, layer: int, experts: tuple[Expert, ...], router: str, pattern: str) -> Iterator[TensorTask]:
        """Experts of a layer, and what chooses among them."""
        name = name_in_layer(layer, router)
        width = self.models[self.config.base_model].tensors[LOOSE[0]].shape[-1]
        gate = self._find_gate(name, layer, (len(experts), width), experts is self.config.shared)
        yield self._copy(name, gate, f"gate_mode {self.config.gate_mode}")
        for number, expert in enumerate(experts):
            for part in MLP:
                source = self.models[expert.model].tensors[name_in_layer(layer, f"mlp.{part}.weight")]
                place = pattern.format(number=number, part=self.family.parts[part])
                # The last matrix writes to the residual stream.
                scale = expert.residual if part == MLP[-1] else 1.0
                yield self._make_expert(name_in_layer(layer, place), source, expert, scale)

    def _make_expert(self, name: str, source: Source, expert: Expert, scale: float) -> TensorTask:
        label = str(expert.model)
        if expert.noise:
            source = Noise(source.name, source.shape, source, self._key(name), expert.noise)
        if scale == 1.0:
            return self._copy(name, source, label)
        compute = self._find_compute(source)
        inputs = Inputs(
            name=name,
            count=source.count,
            base=None,
            models=(0,),
            per_model={"scale": (scale,)},
            places=(0,),
            seed=self.seed,
            wide=compute == _FLOAT64,
            shape=source.shape,
        )
        return TensorTask(name, source.shape, self.dtype, (source,), (label,), inputs, compute)

    def _find_gate(self, name: str, layer: int, shape: tuple[int, int], shared: bool) -> Source:
        mode = self.config.gate_mode
        if mode not in DRAWN:
            return Given(mode, shape, self.gates.rows(layer, shared=shared) if self.gates else None)
        if mode == "random":
            return Noise(mode, shape, None, self._key(name), 1.0)
        return Noise(mode, shape, None, self._key(name), 1 / math.sqrt(shape[1]), "uniform")

    def _copy(self, name: str, source: Source, label: str) -> TensorTask:
        return TensorTask(name, source.shape, self.dtype, (source,), (label,), None, self._find_compute(source))

    def _find_compute(self, source: Source) -> DType:
        return _FLOAT64 if _FLOAT64 in (source.dtype, self.dtype) else _FLOAT32

    def _key(self, name: str) -> int:
        """Of the draws for a tensor: a strong hash, so that neighboring seeds share nothing."""
        digest = hashlib.blake2b(f"{self.seed}\0{name}\0noise".encode(), digest_size=8)
        return int.from_bytes(digest.digest(), "little")
