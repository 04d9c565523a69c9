"""The plan: every output tensor with its sources, method inputs, shape and dtype. No data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pymerge.checkpoint.values import Checkpoint, Source
from pymerge.config.values import MergeConfig
from pymerge.dtypes import DType
from pymerge.errors import Problem
from pymerge.methods.base import Inputs, Method
from pymerge.ops import Select

if TYPE_CHECKING:
    from pymerge.vocabulary import Vocabulary

__all__ = ["MergePlan", "TensorTask"]


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
        count = 1
        for dim in self.shape:
            count *= dim
        return count

    @property
    def nbytes(self) -> int:
        """Bytes in the output."""
        return self.count * self.dtype.bits // 8


@dataclass(frozen=True, slots=True)
class MergePlan:
    """Everything a merge needs to know before it reads a weight.

    Attributes:
        tasks: sorted by tensor name.
        models: every checkpoint that is read, in the order the recipe first names it.
        donor: index into `models` of the checkpoint that gives config.json and tokenizer.
        model_config: config.json of the output.
        layers: number of output layers.
        vocabulary: of the output, if the recipe makes one; else the donor's is copied.
        group_selects: by the number of its task, what a program asks of a group of tensors.
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
    vocabulary: Vocabulary | None = None
    group_selects: Mapping[int, Select] = field(default_factory=dict)
    warnings: tuple[Problem, ...] = ()
