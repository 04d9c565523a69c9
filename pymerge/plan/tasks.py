"""From an assembled part to a task: missing tensors, shapes and types decided, parameters bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pymerge.checkpoint import Source
from pymerge.checkpoint.names import is_buffer
from pymerge.config.values import MergeConfig
from pymerge.dtypes import BY_NAME, DType, promote
from pymerge.errors import DTypeError, Location, ShapeError
from pymerge.methods.base import BaseRule, Method
from pymerge.plan.assembly import Part
from pymerge.plan.binding import Binder
from pymerge.plan.findings import Findings
from pymerge.plan.scope import Scope
from pymerge.plan.sources import Group
from pymerge.plan.values import TensorTask

__all__ = ["TaskMaker"]

_FLOAT32, _FLOAT64 = BY_NAME["float32"], BY_NAME["float64"]
#: Tensors named in a message about many.
_SHOWN = 3


@dataclass(slots=True)
class TaskMaker:
    """Makes tasks one by one; what many tensors have in common is reported once, at the end.

    Attributes:
        scope: which tensors are merged at all.
        donor: the model that gives what no module of the recipe has, as the recipe names it.
        vocabulary: names whose first dimension is the vocabulary (embedding, head).
        partial: whether models may lack tensors.
    """

    config: MergeConfig
    method: Method
    groups: Sequence[Group]
    binder: Binder
    findings: Findings
    donor: str
    vocabulary: frozenset[str]
    scope: Scope
    partial: bool = False
    lacking: dict[str, list[str]] = field(default_factory=dict)
    misshapen: list[tuple[str, str]] = field(default_factory=list)

    def make(self, part: Part) -> TensorTask | None:
        """Return the task for a part, or None if it cannot be merged (then that is noted)."""
        group = self.groups[part.group]
        if part.kept:
            own = tuple(stored for stored in part.inputs if stored is not None)
            return self._copy(part, own, (self.donor,))
        present = [place for place, stored in enumerate(part.inputs) if stored is not None]
        sources = tuple(stored for stored in part.inputs if stored is not None)
        if not sources:
            return None
        labels = tuple(str(group.sources[place].model) for place in present)
        buffer = is_buffer(part.name, sources[0].shape)
        if not self.scope.merges(part.name):
            kept = self._keep(part, group)
            # A buffer that the base lacks is copied as ever.
            if kept is not None:
                return kept
            if not buffer:
                self.scope.lacking.append(part.name)
                return None
        same = len({(stored.shape, stored.dtype) for stored in sources}) == 1
        if buffer and (sources[0].dtype.mergeable or not same):
            chosen = present.index(group.base) if group.base in present else 0
            return self._copy(part, sources[chosen : chosen + 1], labels[chosen : chosen + 1])
        for place, stored in enumerate(part.inputs):
            if stored is None and not buffer:
                self.lacking.setdefault(str(group.sources[place].model), []).append(part.name)
        if len({stored.shape for stored in sources}) > 1:
            shapes = ", ".join(f'"{label}" {list(stored.shape)}' for label, stored in zip(labels, sources, strict=True))
            self.misshapen.append((part.name, shapes))
            return None
        if not all(stored.dtype.mergeable for stored in sources):
            return self._copy_unmergeable(part, sources, labels)
        if not self._can_merge(group, present):
            return self._copy(part, sources[:1], labels[:1])
        types = tuple(stored.dtype for stored in sources)
        wide = _FLOAT64 in types or self.config.dtype == _FLOAT64
        return TensorTask(
            name=part.name,
            shape=sources[0].shape,
            dtype=self._stored_type(tuple(stored.origin for stored in sources)),
            sources=sources,
            labels=labels,
            inputs=self.binder.bind(part, present, wide),
            compute=_FLOAT64 if wide else _FLOAT32,
        )

    def report(self) -> None:
        """Add what was noted about tensors that models lack and shapes that differ."""
        for label, names in self.lacking.items():
            what = f'model "{label}" lacks {len(names)} of the tensors that others have: {_list_names(names)}'
            if self.partial:
                self.findings.warn(what, self._where(label), "merged from the models that have them")
                continue
            self.findings.add(
                what,
                self._where(label),
                "--lenient merges these from the models that have them",
                tolerable=True,
                error=ShapeError,
            )
        if not self.misshapen:
            return
        shown = "; ".join(f'"{name}": {shapes}' for name, shapes in self.misshapen[:_SHOWN])
        self.findings.add(
            f"shapes differ in {len(self.misshapen)} tensors: {shown}" + ("; ..." if self.misshapen[_SHOWN:] else ""),
            self.config.method_where,
            "the vocabularies differ: tokenizer_source: union aligns their rows by token, tokenizer_source: base keeps "
            "the base's tokens"
            if all(name in self.vocabulary for name, _ in self.misshapen)
            else "only models of one family and size can be averaged; passthrough can stack layers of equal width",
            error=ShapeError,
        )

    def _where(self, label: str) -> Location | None:
        return next(entry.model.where for group in self.groups for entry in group.sources if str(entry.model) == label)

    def _stored_type(self, types: tuple[DType, ...]) -> DType:
        return self.config.out_dtype or self.config.dtype or promote(types)

    def _can_merge(self, group: Group, present: Sequence[int]) -> bool:
        """Tell if the models that have a tensor are enough for the method; if not, one is copied."""
        if len(present) == len(group.sources):
            return True
        count = sum(place != group.base for place in present)
        if group.base is not None and group.base not in present and self.method.base is BaseRule.REQUIRED:
            return False
        most = self.method.maximum
        return count >= max(self.method.minimum, 1) and (most is None or count <= most)

    def _copy(
        self, part: Part, sources: tuple[Source, ...], labels: tuple[str, ...], *, must_agree: bool = False
    ) -> TensorTask:
        first = sources[0]
        convert = first.dtype.mergeable and not is_buffer(part.name, first.shape)
        dtype = self._stored_type((first.origin,)) if convert else first.dtype
        compute = _FLOAT64 if first.dtype == _FLOAT64 else _FLOAT32
        return TensorTask(part.name, first.shape, dtype, sources, labels, None, compute, must_agree)

    def _keep(self, part: Part, group: Group) -> TensorTask | None:
        """Copy the base's tensor, whatever the others have; None if there is none."""
        place = self.scope.find_base(group)
        stored = None if place is None else part.inputs[place]
        if place is None or stored is None:
            return None
        return self._copy(part, (stored,), (str(group.sources[place].model),))

    def _copy_unmergeable(self, part: Part, sources: tuple[Source, ...], labels: tuple[str, ...]) -> TensorTask | None:
        """Copy what cannot be averaged: integers and bools if all models agree, codes only from one."""
        types = {stored.dtype for stored in sources}
        whole = all(dtype.name.startswith(("int", "uint", "bool")) for dtype in types)
        if len(sources) == 1 or (whole and len(types) == 1):
            return self._copy(part, sources, labels, must_agree=len(sources) > 1)
        listed = ", ".join(f'"{label}" {stored.dtype}' for label, stored in zip(labels, sources, strict=True))
        self.findings.add(
            f'tensor "{part.name}" has types that cannot be merged: {listed}',
            self.config.method_where,
            "weights must be float64, float32, float16 or bfloat16",
            error=DTypeError,
        )
        return None


def _list_names(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
