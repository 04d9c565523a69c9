"""A plan's output as an adapter: what sums of adapters of one base add to it, as factors of the same product.

    sum_i w_i (W + s_i B_i A_i) = W + [w_1 s_1 B_1, w_2 s_2 B_2, ...] [A_1; A_2; ...]   where the w_i sum to 1

Only headers are needed of the base. Factors are put beside each other by kernels/rows: A's rows as they are; B's rows
in pieces as long as all ranks have in common, so that no element moves within one.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from pymerge.checkpoint.adapters import PREFIX, find_module
from pymerge.checkpoint.sources import LowRank, RowChoice, Rows, Update, list_stored
from pymerge.checkpoint.values import Source, StoredTensor
from pymerge.dtypes import BY_NAME, DType, promote
from pymerge.methods.base import BaseRule, Inputs, Method
from pymerge.ops import KEEP_ALL, Copy, Lines, Program, TaskMerge, WeightedSum
from pymerge.plan.costs import trace_task
from pymerge.plan.findings import Findings
from pymerge.plan.values import MergePlan, Staged, TensorTask

__all__ = ["AdapterParts", "convert_plan"]

_FLOAT32, _FLOAT64 = BY_NAME["float32"], BY_NAME["float64"]
#: How far weights may be from a sum of 1: half of what the last bit of a float32 is worth there.
_TOLERANCE = 2.0**-24
#: Tensors named in a message about many.
_SHOWN = 3
_WAYS_OUT = (
    "merge into a model, without --out-format adapter; what that adds to the base is an adapter by "
    "pymerge extract-lora --model OUT --base-model BASE"
)


@dataclass(frozen=True, slots=True)
class AdapterParts:
    """What an adapter consists of, as its configuration says it.

    Attributes:
        ranks: of the modules that have factors.
        saved: modules that are stored whole.
        biases: whether single biases are stored.
        turned: the model's layers are stored as inputs x outputs.
    """

    ranks: Mapping[str, int]
    saved: tuple[str, ...]
    biases: bool
    turned: bool


@dataclass(frozen=True, slots=True)
class _Term:
    """coefficient * B A; A is [rank, inputs], B is [outputs, rank], as PEFT stores them."""

    coefficient: float
    a: StoredTensor
    b: StoredTensor
    turned: bool

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def embedding(self) -> bool:
        return ".lora_embedding_" in self.a.name


def convert_plan(plan: MergePlan) -> tuple[MergePlan, AdapterParts]:
    """The plan whose tasks are the tensors of an adapter, and what that consists of.

    Raises:
        RecipeError: the models are not adapters of one base, the method is no weighted sum, or the sum is nothing that
            an adapter can hold; all problems are listed.
    """
    findings = Findings(lenient=False)
    _check_recipe(plan, findings)
    findings.check()
    made = _Maker(plan, findings)
    for task in plan.tasks:
        made.take(task)
    parts = made.finish()
    tasks = tuple(sorted(made.tasks, key=lambda task: task.name))
    warnings = (*plan.warnings, *findings.warnings)
    return replace(plan, tasks=tasks, group_selects={}, warnings=warnings), parts


def _check_recipe(plan: MergePlan, findings: Findings) -> None:
    """Refuse recipes whose result is not one base with something added."""
    config = plan.config
    for given, what in (
        (config.stages, "a recipe of several stages"),
        (config.slices, "a recipe of slices"),
        (config.modules, "a recipe of modules"),
        (config.tokenizer, "a tokenizer setting"),
        (config.chat_template, "a chat template"),
    ):
        if given:
            findings.add(f"{what} makes a model, not an adapter", config.method_where, _WAYS_OUT)
    if not any(model.ref.lora for model in plan.models):
        hint = "name models as model: path/to/base+path/to/adapter"
        findings.add("no model of the recipe has an adapter, so none can come of it", config.method_where, hint)
        return
    first = plan.models[0]
    for model in plan.models[1:]:
        if model.folder != first.folder:
            findings.add(
                f'"{model.ref}" is not "{first.ref.path}" with an adapter, so the sum is no adapter of one base',
                model.ref.where,
                _WAYS_OUT,
            )


class _Maker:
    """Makes an adapter's tensors of the tasks of a merge, one by one."""

    def __init__(self, plan: MergePlan, findings: Findings) -> None:
        self._plan, self._findings = plan, findings
        #: `adapt` puts an adapter's file behind those of its model.
        self._files = {str(model.files[-1][0]) for model in plan.models if model.ref.lora}
        self.tasks: list[TensorTask] = []
        self._ranks: dict[str, int] = {}
        self._whole: list[tuple[str, str, TensorTask]] = []
        self._turned: set[bool] = set()
        self._wide: list[str] = []
        self._no_sum: list[str] = []
        self._other_sum: list[tuple[str, float]] = []

    def take(self, task: TensorTask) -> None:
        """Make what a task adds to the base."""
        shares = _find_shares(self._plan, task)
        if shares is None:
            self._no_sum.append(task.name)
            return
        used = {place: share for place, share in shares.items() if share}
        bases: list[Source] = []
        for place in used:
            base = _strip(task.sources[place])
            if not any(_is_same(base, other) for other in bases):
                bases.append(base)
        if len(bases) > 1 or any(stored.path in self._files for base in bases for stored in list_stored(base)):
            self._take_whole(task)
            return
        total = math.fsum(used.values())
        if abs(total - 1) > _TOLERANCE:
            self._other_sum.append((task.name, total))
            return
        terms = [term for place, share in used.items() for term in _list_terms(task.sources[place], share)]
        if terms:
            self._take_factors(task, terms)

    def _take_whole(self, task: TensorTask) -> None:
        """A tensor that an adapter brings as it is stays one; the models without it have the base's."""
        stored = (each for source in task.sources for each in list_stored(source))
        names = (each.name for each in stored if each.path in self._files and ".lora_" not in each.name)
        module = next((module for name in names if (module := find_module(name))), None)
        if module is None:
            self._findings.add(
                f'"{task.name}" is not the base\'s tensor with products of factors in all models',
                self._plan.config.method_where,
                _WAYS_OUT,
            )
            return
        self._whole.append((module, task.name.rpartition(".")[2], task))

    def _take_factors(self, task: TensorTask, terms: Sequence[_Term]) -> None:
        module = find_module(terms[0].a.name)
        assert module is not None
        if len({(term.turned, term.embedding) for term in terms}) > 1:
            self._findings.add(
                f"the adapters disagree about how {module} is stored (fan_in_fan_out)",
                self._plan.config.method_where,
                _WAYS_OUT,
            )
            return
        ranks = tuple(term.rank for term in terms)
        rank, inputs, outputs = sum(ranks), terms[0].a.shape[1], terms[0].b.shape[0]
        if not terms[0].embedding:
            self._turned.add(terms[0].turned)
        if rank > min(inputs, outputs):
            self._wide.append(module)
        self._ranks[module] = rank
        config = self._plan.config
        origins = tuple(factor.dtype for term in terms for factor in (term.a, term.b))
        dtype = config.out_dtype or config.dtype or promote(origins)
        ends = ("lora_embedding_A", "lora_embedding_B") if terms[0].embedding else ("lora_A.weight", "lora_B.weight")
        a, b = (f"{PREFIX}{module}.{end}" for end in ends)
        label = task.labels[0]
        joined: Source = terms[0].a
        beside: Source = terms[0].b
        if len(terms) > 1:
            joined = Rows(a, tuple(term.a for term in terms), _follow(ranks))
            beside = _put_beside(b, terms, outputs, ranks)
        self.tasks.append(_copy(a, (rank, inputs), dtype, joined, label))
        scaled = _scale(b, beside, (outputs, rank), dtype, label, tuple(term.coefficient for term in terms), ranks)
        self.tasks.append(_copy(b, (outputs, rank), dtype, scaled, label))

    def finish(self) -> AdapterParts:
        """Add what is stored whole, and report what was noted.

        Raises:
            RecipeError: as `convert_plan`.
        """
        self._report()
        saved = dict.fromkeys(module for module, end, _ in self._whole if end == "weight")
        for module, end, task in self._whole:
            # Where its module has factors, PEFT has the module itself below `base_layer`.
            owner = f"{module}.base_layer" if module in self._ranks else module
            self.tasks.append(replace(task, name=f"{PREFIX}{owner}.{end}"))
        biases = any(module not in saved for module, *_ in self._whole)
        return AdapterParts(self._ranks, tuple(saved), biases, True in self._turned)

    def _report(self) -> None:
        where, method = self._plan.config.method_where, self._plan.method.name
        if self._no_sum:
            self._findings.add(
                f"{method}: what it makes of {_list_names(self._no_sum)} is no weighted sum of the models with weights "
                "that are known before they are read, so no adapter is exactly that",
                where,
                _WAYS_OUT,
            )
        if self._other_sum:
            name, total = self._other_sum[0]
            self._findings.add(
                f'{method}: the weights of {len(self._other_sum)} tensors, such as "{name}", sum to {total:.9g}, so '
                f"the result has {total:.9g} times the base in it; an adapter is added to the base as it is",
                where,
                "linear with normalize: true, and task_arithmetic, keep the base; or merge into a model",
            )
        if len(self._turned) > 1:
            self._findings.add("only some of the layers are stored as inputs x outputs", where, _WAYS_OUT)
        if self._wide:
            self._findings.warn(
                f"the sum of ranks is above the rank that a matrix can have in {len(self._wide)} modules, such as "
                f"{self._wide[0]}",
                where,
                "pymerge extract-lora --model BASE+OUT --base-model BASE --max-rank N finds a smaller adapter",
            )
        self._findings.check()
        if not self._ranks:
            hint = "give an adapter a weight that is not 0" if not self._whole else _WAYS_OUT
            self._findings.add("no factors are left in the result, and PEFT loads no adapter without any", where, hint)
            self._findings.check()


def _find_shares(plan: MergePlan, task: TensorTask) -> dict[int, float] | None:
    """What each source is multiplied by in the result; None if that is no such sum, or is decided on their data."""
    trace = trace_task(plan, task)
    combine = trace.combine
    if trace.measures:
        return None
    if isinstance(combine, Copy):
        return {combine.source: 1.0}
    if isinstance(combine, WeightedSum) and combine.lines is None:
        return dict(zip(combine.sources, map(float, combine.coefficients), strict=True))
    if isinstance(combine, TaskMerge) and combine.consensus == "none" and not combine.pick:
        if any(rule != KEEP_ALL for rule in combine.rules):
            return None
        shares = dict(zip(combine.sources, combine.coefficients, strict=True))
        shares[combine.base] = 1 - math.fsum(combine.coefficients)
        return shares
    return None


def _strip(source: Source) -> Source:
    """What products are added to."""
    return source.base if isinstance(source, LowRank) and source.base is not None else source


def _is_same(one: Source, other: Source) -> bool:
    """Whether two sources are the same elements of the same files."""
    if isinstance(one, StoredTensor) or isinstance(other, StoredTensor):
        return one == other
    if type(one) is not type(other) or one.settings != other.settings or len(one.parts) != len(other.parts):
        return False
    return all(map(_is_same, one.parts, other.parts))


def _list_terms(source: Source, share: float) -> list[_Term]:
    return [_make_term(update, share) for update in source.updates] if isinstance(source, LowRank) else []


def _make_term(update: Update, share: float) -> _Term:
    a, b = (update.b, update.a) if update.transposed else (update.a, update.b)
    assert isinstance(a, StoredTensor)
    assert isinstance(b, StoredTensor)
    return _Term(share * update.scale, a, b, update.transposed)


def _copy(name: str, shape: tuple[int, ...], dtype: DType, source: Source, label: str) -> TensorTask:
    return TensorTask(name, shape, dtype, (source,), (label,), None, _compute(dtype))


def _compute(dtype: DType) -> DType:
    return _FLOAT64 if dtype == _FLOAT64 else _FLOAT32


@lru_cache(maxsize=64)
def _follow(ranks: tuple[int, ...]) -> RowChoice:
    """All rows of matrices of so many rows, one matrix after the other."""
    parts = array("q", (part for part, rank in enumerate(ranks) for _ in range(rank)))
    rows = array("q", (row for rank in ranks for row in range(rank)))
    return RowChoice(array("q", range(len(rows) + 1)), parts, rows)


def _put_beside(name: str, terms: Sequence[_Term], outputs: int, ranks: tuple[int, ...]) -> Rows:
    """Matrices [outputs, rank_i] beside each other, as rows of as many elements as all ranks are multiples of."""
    width = math.gcd(*ranks)
    cut = tuple(replace(term.b, shape=(term.b.count // width, width)) for term in terms)
    return Rows(name, cut, _interleave(outputs, tuple(rank // width for rank in ranks)), (outputs, sum(ranks)))


@lru_cache(maxsize=16)
def _interleave(rows: int, counts: tuple[int, ...]) -> RowChoice:
    """`counts[i]` consecutive rows of every matrix i, in turn, so many times."""
    parts = array("q", (part for part, count in enumerate(counts) for _ in range(count))) * rows
    first = [(count, place) for count in counts for place in range(count)]
    chosen = array("q", (row * count + place for row in range(rows) for count, place in first))
    return RowChoice(array("q", range(len(chosen) + 1)), parts, chosen)


def _scale(
    name: str,
    factor: Source,
    shape: tuple[int, ...],
    dtype: DType,
    label: str,
    coefficients: tuple[float, ...],
    ranks: tuple[int, ...],
) -> Source:
    """B with its columns multiplied, not yet rounded."""
    if set(coefficients) == {1.0}:
        return factor
    compute = _compute(dtype)
    inputs = Inputs(
        name=name,
        count=math.prod(shape),
        base=None,
        models=(0,),
        per_model={"coefficient": coefficients, "rank": ranks},
        shape=shape,
    )
    task = TensorTask(name, shape, compute, (factor,), (label,), inputs, compute)
    return Staged(name, shape, task, _COLUMNS, dtype)


def _multiply_columns(inputs: Inputs) -> Program:
    coefficients, ranks = inputs.numbers("coefficient"), map(int, inputs.numbers("rank"))
    if len(set(coefficients)) == 1:
        return WeightedSum((0,), coefficients[:1])
    columns = array("d", (value for value, rank in zip(coefficients, ranks, strict=True) for _ in range(rank)))
    return WeightedSum((0,), columns, lines=Lines(len(columns), inputs.shape[0], strided=True))
    yield  # a program is a generator; this one measures nothing


#: Not one of recipes: what multiplies the columns of B.
_COLUMNS = Method(
    name="columns",
    title="Columns of factors, multiplied",
    formula="Y = [c_1 B_1, c_2 B_2, ...]",
    reference="folklore",
    base=BaseRule.OPTIONAL,
    program=_multiply_columns,
)


def _list_names(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names[:_SHOWN]) + (
        f" and {len(names) - _SHOWN:,} more" if names[_SHOWN:] else ""
    )
