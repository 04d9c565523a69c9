"""Tensors of an output made again from its inputs: by the specification to the bit, and in float64.

The specification works on whole tensors, so memory says which tensors can be made again. What is only copied,
or stored in another type, is compared piece by piece, whatever its size.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pymerge.backends.reference import ReferenceOps, decide
from pymerge.checkpoint import Source, StoredTensor
from pymerge.dtypes import BY_NAME
from pymerge.execute.derived import read_source
from pymerge.execute.feeders import calculated
from pymerge.execute.groups import find_group_cuts
from pymerge.execute.memory import find_combine
from pymerge.kernels.common.convert import Array, decode, encode
from pymerge.ops import Combine, Copy, Cut, Measure
from pymerge.plan.costs import find_twin
from pymerge.plan.moe import list_pending
from pymerge.plan.values import MergePlan, Staged, TensorTask
from pymerge.verify.reading import read_pieces, read_whole, storage
from pymerge.verify.ulp import last_place
from pymerge.verify.values import Accuracy, Check, Finding, OnStep, Recomputed, join_names

__all__ = ["memory_needed", "recompute"]

_FLOAT64 = BY_NAME["float64"]
#: Bytes that making a tensor again takes at most, for each of its elements, and for each source of each: measured,
#: methods take 76 to 194 with up to four sources.
_PER_ELEMENT, _PER_SOURCE = 120, 40


def memory_needed(plan: MergePlan, task: TensorTask) -> int:
    """Bytes that it takes to make a tensor again; 0 for what is copied piece by piece."""
    return 0 if _find_source(plan, task) else task.count * (_PER_ELEMENT + _PER_SOURCE * len(task.sources))


def _find_source(plan: MergePlan, task: TensorTask) -> StoredTensor | None:
    """What a tensor is copied from, or converted from, whatever the data is; None if it is merged."""
    if task.inputs is not None:
        return find_twin(plan, task)
    source = task.sources[0]
    return source if isinstance(source, StoredTensor) else None


def recompute(
    plan: MergePlan,
    tensors: Mapping[str, StoredTensor],
    *,
    sample: int | None,
    seed: int,
    memory: int,
    undigested: Collection[str] = (),
    on_step: OnStep = lambda step: None,
) -> tuple[Check, tuple[Recomputed, ...]]:
    """Make tensors again and compare.

    Args:
        tensors: what the output holds.
        sample: how many, drawn at random; None for all.
        seed: of the draw.
        memory: bytes that this may take; tensors that need more are left out, and are named.
        undigested: tensors that nothing else vouches for: those of them that are copies are made again in any case.
        on_step: called with what comes next, before each tensor.
    """
    wrong = list(_match(plan.tasks, tensors))
    # Rows of routers that come of prompts are not worked out again: their digests vouch for them.
    pending = list_pending(plan)
    known = [n for n, task in enumerate(plan.tasks) if _fits(task, tensors.get(task.name)) and task.name not in pending]
    obstacles = _find_obstacles(plan, memory)
    able = [n for n in known if n not in obstacles]
    wanted = len(known) if sample is None else min(sample, len(known))
    drawn = random.Random(seed).sample(able, min(wanted, len(able)))
    copies = [n for n in able if plan.tasks[n].name in undigested and _find_source(plan, plan.tasks[n])]
    chosen = sorted({*drawn, *copies})
    found = tuple(_make_again(plan, chosen, tensors, on_step))
    wrong += [
        Finding(f"{each.differing:,} of {each.count:,} elements are not the reference's, the first at {each.first}",
                tensor=each.name)
        for each in found
        if each.differing
    ]  # fmt: skip
    unchecked = [Finding(why, tensor=plan.tasks[n].name) for n, why in obstacles.items()]
    summary = f"{len(found):,} of {len(plan.tasks):,} tensors"
    if unchecked:
        names = join_names([plan.tasks[n].name for n in obstacles])
        summary += f"; {len(unchecked):,} are too large for {memory:,} bytes of memory: {names}"
    return Check("recomputed", summary, tuple(wrong), tuple(unchecked) if len(drawn) < wanted else ()), found


def _match(tasks: Sequence[TensorTask], tensors: Mapping[str, StoredTensor]) -> Iterator[Finding]:
    for task in tasks:
        stored = tensors.get(task.name)
        if stored is None:
            yield Finding("is missing, though the recipe gives it", tensor=task.name)
        elif not _fits(task, stored):
            yield Finding(
                f"is {stored.dtype} {list(stored.shape)}, the recipe gives {task.dtype} {list(task.shape)}",
                tensor=task.name,
            )
    names = {task.name for task in tasks}
    yield from (Finding("is not what the recipe gives", tensor=name) for name in tensors if name not in names)


def _fits(task: TensorTask, stored: StoredTensor | None) -> bool:
    return stored is not None and (stored.dtype, stored.shape) == (task.dtype, task.shape)


def _find_obstacles(plan: MergePlan, memory: int) -> dict[int, str]:
    """Why tensors cannot be made again, by number: they, or one that they are trimmed together with, are too large."""
    needs = [memory_needed(plan, task) for task in plan.tasks]
    largest: dict[str, int] = {}
    for number, select in plan.group_selects.items():
        largest[select.group] = max(number, largest.get(select.group, number), key=lambda n: needs[n])
    stages = _Stages(memory)
    obstacles = {}
    for number, need in enumerate(needs):
        group = plan.group_selects[number].group if number in plan.group_selects else ""
        other = largest.get(group, number)
        if need > memory:
            obstacles[number] = f"takes {need:,} bytes of memory to make again; --memory allows {memory:,}"
        elif needs[other] > memory:
            name = plan.tasks[other].name
            obstacles[number] = f"is trimmed together with {name}, which takes {needs[other]:,} bytes of memory"
        elif why := stages.find_obstacle(plan.tasks[number].sources):
            obstacles[number] = why
    return obstacles


@dataclass(slots=True)
class _Stages:
    """Earlier stages whose tensors are trimmed together: to make one of them again takes all of them, one by one."""

    memory: int
    _largest: dict[tuple[int, str], tuple[int, str]] = field(default_factory=dict)

    def find_obstacle(self, sources: Sequence[Source]) -> str | None:
        """Why what is read cannot be made again; None if it can."""
        for source in sources:
            if isinstance(source, Staged) and source.stage is not None:
                need, name = self._find_largest(source.stage, source.task.name)
                if need > self.memory:
                    return f"is made of what is trimmed together with {name}, which takes {need:,} bytes of memory"
            if why := self.find_obstacle(source.parts):
                return why
        return None

    def _find_largest(self, stage: MergePlan, name: str) -> tuple[int, str]:
        select = stage.group_selects.get(bisect_left(stage.tasks, name, key=lambda task: task.name))
        if select is None:
            return 0, name
        key = (id(stage), select.group)
        if key not in self._largest:
            members = [stage.tasks[n] for n, each in stage.group_selects.items() if each.group == select.group]
            self._largest[key] = max((memory_needed(stage, task), task.name) for task in members)
        return self._largest[key]


@dataclass(frozen=True, slots=True)
class _Oracle:
    """The specification at one precision.

    Attributes:
        tasks: the plan's, or the same in float64.
        cuts: answers to the selects of groups, by number of the task.
        wide: whether it is float64 that the sources are decoded to; nothing then narrows the lanes of a sum either.
    """

    plan: MergePlan
    tasks: Sequence[TensorTask]
    cuts: Mapping[int, tuple[Cut, ...]]
    wide: bool

    @classmethod
    def prepare(cls, plan: MergePlan, chosen: Sequence[int], *, wide: bool) -> _Oracle:
        """Find what groups of tensors have in common, where any of them is chosen."""
        tasks = [_widen(task) for task in plan.tasks] if wide else plan.tasks
        groups = {plan.group_selects[n].group for n in chosen if n in plan.group_selects}
        selects = {n: select for n, select in plan.group_selects.items() if select.group in groups}

        def measure(requests: Mapping[int, Measure]) -> Iterator[tuple[int, Any]]:
            for number, request in requests.items():
                task = tasks[number]
                yield number, ReferenceOps().measure(request, _read(task, wide), task.compute)

        return cls(plan, tasks, find_group_cuts(tasks, selects, measure) if selects else {}, wide)

    def run(self, number: int, out: Array) -> tuple[Combine, Array]:
        """Merge a tensor into `out`; returns the combine, and what it decided of every element."""
        task, ops = self.tasks[number], ReferenceOps()
        operands = _read(task, self.wide)
        combine = calculated(task, Copy(0))
        if task.inputs is not None:
            combine = find_combine(self.plan.method, task.inputs, ops, operands, task.compute, self.cuts.get(number))
        ops.combine(combine, operands, task.compute, out)
        return combine, decide(combine, operands, task.compute)


def _widen(task: TensorTask) -> TensorTask:
    return replace(task, compute=_FLOAT64, inputs=task.inputs and replace(task.inputs, wide=True))


def _read(task: TensorTask, wide: bool) -> list[Array]:
    return [decode(read_source(source), "float64") if wide else read_source(source) for source in task.sources]


def _make_again(
    plan: MergePlan, chosen: Sequence[int], tensors: Mapping[str, StoredTensor], on_step: OnStep
) -> Iterator[Recomputed]:
    if any(n in plan.group_selects for n in chosen):
        on_step("finding what tensors are trimmed by together")
    narrow, wide = (_Oracle.prepare(plan, chosen, wide=wide) for wide in (False, True))
    for number in chosen:
        task = plan.tasks[number]
        on_step(f"making {task.name} again")
        stored = tensors[task.name]
        facts = (task.name, task.dtype.name, task.count)
        source = _find_source(plan, task)
        if source is not None:
            yield Recomputed(*facts, *_compare_copy(task, source, stored))
            continue
        held = read_whole(stored)
        out = np.empty_like(held)
        combine, decided = narrow.run(number, out)
        differing, first = _count_differing(held, out)
        del out
        yield Recomputed(*facts, differing, first, _judge(wide, number, held, combine, decided))


def _compare_copy(task: TensorTask, source: StoredTensor, stored: StoredTensor) -> tuple[int, int | None]:
    differing, first, at = 0, None, 0
    for held, given in zip(read_pieces(stored), read_pieces(source), strict=True):
        out = given
        if stored.dtype != source.dtype:
            out = np.empty(given.size, storage(stored))
            ReferenceOps().combine(Copy(0), [given], task.compute, out)
        count, place = _count_differing(held, out)
        if place is not None and first is None:
            first = at + place
        differing, at = differing + count, at + held.size
    return differing, first


def _count_differing(left: Array, right: Array) -> tuple[int, int | None]:
    word = np.dtype(f"u{left.dtype.itemsize}")
    differs = left.view(word) != right.view(word)
    count = int(np.count_nonzero(differs))
    return count, int(np.argmax(differs)) if count else None


def _judge(wide: _Oracle, number: int, held: Array, combine: Combine, decided: Array) -> Accuracy | None:
    """How far a stored tensor is from float64; `decided` is what its own precision decided."""
    task = wide.tasks[number]
    ideal = np.empty(task.count, np.float64)
    wide_combine, ideally = wide.run(number, ideal)
    alike = type(combine) is type(wide_combine) and decided.shape == ideally.shape
    same = (decided == ideally).all(axis=0) if alike else np.zeros(task.count, np.bool_)
    del decided, ideally
    dtype = task.dtype.name
    values = decode(held, "float64")
    largest = np.abs(ideal)
    for source in _read(task, True):
        largest = np.fmax(largest, np.abs(source))
    # Where a source is not, the largest is not, or only fmax left a NaN out.
    finite = np.isfinite(values) & np.isfinite(largest) & np.isfinite(ideal)
    with np.errstate(invalid="ignore"):
        units = np.abs(values - ideal)[finite] / last_place(largest[finite], dtype)
    if not units.size:
        return None
    kept = units[same[finite] | (units <= 1)]
    rounded = encode(ideal, dtype).view(f"u{held.dtype.itemsize}") == held.view(f"u{held.dtype.itemsize}")
    return Accuracy(
        largest=float(kept.max(initial=0.0)),
        rms=float(np.sqrt(np.square(kept).sum() / max(1, kept.size))),
        within=float((units <= 1).mean()),
        rounded=float(rounded[finite].mean()),
        otherwise=units.size - kept.size,
    )
