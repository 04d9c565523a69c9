"""What extracting an adapter is asked for, planned as, and gives back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from pymerge.checkpoint import Checkpoint, Source
from pymerge.checkpoint.remote import RemoteFile
from pymerge.dtypes import DType

__all__ = ["Extracted", "Extraction", "ExtractionPlan", "Factors", "OnStep", "Options", "Whole", "WholeTensor"]

#: Told what is done next.
OnStep: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for; see `pymerge.extract_lora`."""

    max_rank: int = 128
    energy: float | None = None
    sv_epsilon: float = 0.0
    distribute_scale: bool = True
    embed_lora: bool = False
    save_modules: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    skip_undecomposable: bool = False
    method: str = "auto"
    dtype: str | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Factors:
    """A matrix that becomes two factors, if it differs.

    Attributes:
        module: its name in PEFT's model.
        kind: "linear"; "embedding" and "conv1d", whose product is the weight's transpose.
        rank: the most that it may get.
        dtype: of the factors.
        method: how it will be decomposed.
    """

    module: str
    tuned: Source
    base: Source
    kind: str
    rank: int
    dtype: DType
    method: str

    @property
    def shape(self) -> tuple[int, int]:
        """Of B A: outputs, inputs."""
        rows, columns = self.tuned.shape
        return (rows, columns) if self.kind == "linear" else (columns, rows)

    @property
    def names(self) -> tuple[str, str]:
        """Of A and B in the file."""
        sides = (
            ("lora_embedding_A", "lora_embedding_B") if self.kind == "embedding" else ("lora_A.weight", "lora_B.weight")
        )
        return f"{self.module}.{sides[0]}", f"{self.module}.{sides[1]}"

    @property
    def size(self) -> int:
        """Bytes of the factors at most."""
        return self.rank * sum(self.tuned.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class WholeTensor:
    """A tensor that is stored as the fine-tuned model has it, if it differs from the base's."""

    name: str
    tuned: Source
    base: Source
    dtype: DType

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.tuned.count * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Whole:
    """Tensors that are stored as they are, all of them if one of them differs.

    Attributes:
        modules: those that PEFT replaces (modules_to_save); none for a bias, which stands beside them.
        why: what they are, for messages.
        writable: False of what no adapter can hold: if it differs, the extraction is refused.
    """

    name: str
    modules: tuple[str, ...]
    tensors: tuple[WholeTensor, ...]
    why: str
    writable: bool = True

    @property
    def size(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.size for tensor in self.tensors)


@dataclass(frozen=True, slots=True)
class ExtractionPlan:
    """An extraction, planned from headers.

    Attributes:
        parts: in the order in which they are written.
        left_out: module or tensor -> why it is not looked at.
        turned: the model's matrices are stored as inputs x outputs (GPT-2).
        missing: weight files that are still to come from a hub, by path.
    """

    options: Options
    tuned: Checkpoint
    base: Checkpoint
    parts: tuple[Factors | Whole, ...]
    left_out: Mapping[str, str]
    warnings: tuple[str, ...]
    turned: bool
    task_type: str
    threads: int
    memory: int
    missing: Mapping[str, RemoteFile] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of the adapter's tensors at most."""
        return sum(part.size for part in self.parts if not isinstance(part, Whole) or part.writable)

    def describe(self) -> dict[str, Any]:
        """The plan as plain values."""
        factors = [part for part in self.parts if isinstance(part, Factors)]
        whole = [part for part in self.parts if isinstance(part, Whole) and part.writable]
        return {
            "model": str(self.tuned.ref),
            "base_model": str(self.base.ref),
            "matrices": [
                {
                    "module": part.module,
                    "kind": part.kind,
                    "shape": list(part.shape),
                    "max_rank": part.rank,
                    "method": part.method,
                    "dtype": part.dtype.name,
                    "size": part.size,
                }
                for part in factors
            ],
            "whole": [{"name": part.name, "why": part.why, "size": part.size} for part in whole],
            "left_out": dict(self.left_out),
            "size": self.size,
            "fetched": sum(file.size for file in self.missing.values()),
            "threads": self.threads,
            "memory": self.memory,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, slots=True)
class Extracted:
    """One matrix, decomposed.

    Attributes:
        shape: of B A.
        norm: Frobenius norm of the difference D.
        error: ||D - B A|| / ||D|| of the factors as they are stored, worked out element by element.
        kept: share of ||D||^2 that the kept singular values have.
        largest: the largest singular value.
    """

    module: str
    kind: str
    shape: tuple[int, int]
    rank: int
    norm: float
    error: float
    kept: float
    largest: float
    method: str


@dataclass(frozen=True, slots=True)
class Extraction:
    """A finished extraction.

    Attributes:
        matrices: those that have factors.
        whole: name -> why it is stored as it is.
        equal: what is the same in both models, and so is not in the adapter.
        left_out: name -> why it was not looked at, or not stored.
        rank: the largest.
        size: bytes of the weight file.
        error: ||D - B A|| / ||D|| over all of `matrices` together.
    """

    folder: Path
    matrices: tuple[Extracted, ...]
    whole: Mapping[str, str]
    equal: tuple[str, ...]
    left_out: Mapping[str, str]
    extras: tuple[str, ...]
    rank: int
    size: int
    seconds: float
    warnings: tuple[str, ...]

    @property
    def error(self) -> float:
        """Relative error in total; 0 where nothing was decomposed."""
        norm = math.hypot(*(each.norm for each in self.matrices))
        return math.hypot(*(each.norm * each.error for each in self.matrices)) / norm if norm else 0.0

    def finished(self, size: int, seconds: float) -> Extraction:
        """The same with what is known at the very end."""
        return replace(self, size=size, seconds=seconds)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "folder": str(self.folder), "error": self.error}
