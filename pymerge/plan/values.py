"""The plan: every output tensor with its sources, method inputs, shape and dtype. No data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pymerge.checkpoint.sources import Derived
from pymerge.checkpoint.values import Checkpoint, Source
from pymerge.config.values import MergeConfig
from pymerge.dtypes import DType
from pymerge.errors import Problem
from pymerge.methods.base import Inputs, Method
from pymerge.ops import Select

if TYPE_CHECKING:
    from pymerge.vocabulary import Vocabulary

__all__ = ["RECIPES", "MergePlan", "Staged", "TensorTask"]

#: The names under which recipes are kept beside outputs: that of mergekit's merges, by which tools look for it; of
#: mixtures of experts.
RECIPES = ("mergekit_config.yml", "pymerge_moe.yml")


@dataclass(frozen=True, slots=True)
class TensorTask:
    """One output tensor.

    Attributes:
        name, shape, dtype: as they will be stored.
        sources: what is read; `inputs` names them by position.
        labels: for each source, the model as the recipe names it (for messages).
        inputs: what the method's program is called with; None means a plain copy of sources[0]
            (integer tensors that agree in all inputs, tensors outside the method's reach).
        must_agree: the sources of a plain copy must hold the same bytes, else the merge stops
            (integers and bools cannot be merged).
        compute: the type that kernels calculate in, float32 or float64.
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType
    sources: tuple[Source, ...]
    labels: tuple[str, ...]
    inputs: Inputs | None
    compute: DType
    must_agree: bool = False

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the output."""
        return self.count * self.dtype.bits // 8


@dataclass(frozen=True, slots=True, eq=False)
class Staged(Derived):
    """What a task of an earlier stage gives, before it is rounded: made while it is read, never stored.

    Attributes:
        task: its output has the type that it is calculated in.
        origin: the type that the stage would have stored.
        stage: its plan, where its tensors are trimmed together: it is merged by itself, or made again for a check.
    """

    name: str
    shape: tuple[int, ...]
    task: TensorTask
    method: Method
    origin: DType
    stage: MergePlan | None = None

    @property
    def dtype(self) -> DType:
        """The type that the task is calculated in."""
        return self.task.compute

    @property
    def parts(self) -> tuple[Source, ...]:
        """The task's sources."""
        return self.task.sources

    @property
    def settings(self) -> tuple[object, ...]:
        """Method and parameters."""
        return (self.method.name, self.task.compute, self.task.inputs)


@dataclass(frozen=True, slots=True)
class MergePlan:
    """Everything a merge needs to know before it reads a weight.

    Attributes:
        tasks: sorted by tensor name.
        models: every checkpoint that is read, in the order the recipe first names it.
        donor: index into `models` of the checkpoint that gives config.json and tokenizer.
        model_config: config.json of the output.
        layers: number of output layers.
        separate: names of stages that have to be merged by themselves before this plan can be carried out.
        vocabulary: of the output, if the recipe makes one; else the donor's is copied.
        group_selects: by the number of its task, what a program asks of a group of tensors.
        recipe_file: one of `RECIPES`.
        warnings: what was tolerated, for the user to read.
    """

    config: MergeConfig
    method: Method
    tasks: tuple[TensorTask, ...]
    models: tuple[Checkpoint, ...]
    donor: int
    model_config: Mapping[str, Any]
    layers: int
    seed: int
    separate: tuple[str, ...] = ()
    vocabulary: Vocabulary | None = None
    group_selects: Mapping[int, Select] = field(default_factory=dict)
    recipe_file: str = RECIPES[0]
    warnings: tuple[Problem, ...] = ()
