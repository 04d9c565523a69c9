"""Which module of a fine-tuned model becomes what in an adapter; all mistakes of a caller end here, no weight is read."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from pymerge.checkpoint import Checkpoint, Source, open_checkpoint
from pymerge.checkpoint.names import is_buffer, last_part
from pymerge.checkpoint.remote import Locate
from pymerge.checkpoint.sources import list_stored
from pymerge.config import load_recipe
from pymerge.config.values import Input, MergeConfig, ModelRef
from pymerge.dtypes import BY_NAME, DType
from pymerge.errors import RecipeError, ResourceError, ShapeError
from pymerge.extract.decompose import choose_method, estimate_memory
from pymerge.extract.roles import find_role, find_task_type, is_tied, name_in_peft, split_name
from pymerge.extract.values import ExtractionPlan, Factors, Options, Whole, WholeTensor
from pymerge.plan.findings import Findings
from pymerge.plan.sources import Model, open_models
from pymerge.schedule.machine import usable_memory, usable_processors

__all__ = ["list_sources", "plan_extraction"]

#: What Python, numpy and the pieces of tensors that are read take.
_AT_REST = 96 << 20
_EMBEDDINGS = ("embedding", "positions", "head")
#: Role -> what it is, where it is stored as it is.
_WHY = {
    "embedding": "a token embedding",
    "positions": "an embedding",
    "head": "the output head",
    "router": "a router of experts",
    "norm": "a vector",
    "tensor": "no matrix",
    "bias": "a bias",
    "parameter": "a parameter that is no module's weight",
}


def plan_extraction(
    tuned: str,
    base: str,
    options: Options,
    *,
    locate: Locate | None = None,
    threads: int | None = None,
    memory: int | None = None,
) -> ExtractionPlan:
    """Plan what `tuned` adds to `base`, both as recipes name models, as an adapter.

    Raises:
        RecipeError: options or models cannot work; all problems are listed.
        FormatError, DTypeError: a model cannot be read.
        ShapeError: their tensors do not fit together.
        ResourceError: the largest matrix does not fit into `memory`.
    """
    findings = Findings(lenient=False)
    filters = _Filters.read(options, findings)
    models = _open(tuned, base, findings, locate)
    findings.check()
    sorter = _Sorter(*models, options, filters, findings)
    parts = sorted(sorter.sort(), key=_order)
    filters.report_unused(findings)
    findings.check()
    count, budget = _fit(parts, threads, memory)
    read = {stored.path for part in parts for source in list_sources(part) for stored in list_stored(source)}
    remote = {str(path): file for model in models for path, file in model.checkpoint.remote.items()}
    return ExtractionPlan(
        options=options,
        tuned=models[0].checkpoint,
        base=models[1].checkpoint,
        parts=tuple(parts),
        left_out=sorter.left_out,
        warnings=tuple(str(warning) for warning in findings.warnings),
        turned=sorter.turned,
        task_type=find_task_type(models[1].checkpoint.config),
        threads=count,
        memory=budget,
        missing={path: remote[path] for path in sorted(read & remote.keys()) if not os.path.exists(path)},
    )


@dataclass(slots=True)
class _Filters:
    """The patterns that choose modules; those that never matched are mistakes."""

    include: tuple[re.Pattern[str], ...]
    exclude: tuple[re.Pattern[str], ...]
    save: tuple[str, ...]
    used: set[object] = field(default_factory=set)

    @classmethod
    def read(cls, options: Options, findings: Findings) -> _Filters:
        """Check all options."""
        if options.max_rank < 1:
            findings.add(f"--max-rank {options.max_rank} is not a rank", hint="a rank is at least 1")
        if options.energy is not None and not 0 < options.energy <= 1:
            findings.add(f"--energy {options.energy} is not a share", hint="it is above 0 and at most 1, such as 0.99")
        if not (math.isfinite(options.sv_epsilon) and options.sv_epsilon >= 0):
            findings.add(f"--sv-epsilon {options.sv_epsilon} is below 0 or no number")
        if options.method not in ("auto", "randomized", "exact"):
            findings.add(f"--method {options.method} is unknown", hint="it is auto, randomized or exact")
        if options.dtype is not None and not _writes(options.dtype):
            findings.add(f"--dtype {options.dtype} is no type of factors", hint="float32, float16 or bfloat16")
        compiled = {
            option: tuple(filter(None, (_compile(option, text, findings) for text in texts)))
            for option, texts in (("--include-regex", options.include), ("--exclude-regex", options.exclude))
        }
        return cls(compiled["--include-regex"], compiled["--exclude-regex"], options.save_modules)

    def find(self, module: str, *, embedding: bool) -> str | None:
        """Why a module is left out; None if it is not. Embeddings and head need not be included."""
        excluded = [pattern for pattern in self.exclude if pattern.search(module)]
        included = [pattern for pattern in self.include if pattern.search(module)]
        self.used.update(excluded, included)
        if excluded:
            return f"--exclude-regex {excluded[0].pattern}"
        return "no --include-regex matches" if self.include and not included and not embedding else None

    def saves(self, module: str) -> bool:
        """Whether a module was named to be stored as it is: whole, or by its last part."""
        named = {name for name in self.save if module == name or module.endswith(f".{name}")}
        self.used |= named
        return bool(named)

    def report_unused(self, findings: Findings) -> None:
        """Every pattern and name has to mean something."""
        for option, given in (("--include-regex", self.include), ("--exclude-regex", self.exclude)):
            for pattern in (pattern for pattern in given if pattern not in self.used):
                findings.add(f"{option} {pattern.pattern} matches no module", hint="pymerge inspect lists tensors")
        for name in (name for name in self.save if name not in self.used):
            findings.add(f"--save-module {name} is no module of the model", hint="pymerge inspect lists tensors")


def _writes(dtype: str) -> bool:
    return dtype in BY_NAME and BY_NAME[dtype].mergeable and dtype != "float64"


def _compile(option: str, text: str, findings: Findings) -> re.Pattern[str] | None:
    try:
        return re.compile(text)
    except re.error as error:
        findings.add(f"{option} {text} is no regular expression: {error}")
        return None


def _open(tuned: str, base: str, findings: Findings, locate: Locate | None) -> tuple[Model, Model]:
    ref, base_ref = _read_reference(tuned), _read_reference(base)
    if ref == base_ref:
        raise RecipeError(f'model and base are both "{ref}"; name the fine-tuned model and the one that it comes from')
    config = MergeConfig("linear", models=(Input(ref),), base_model=base_ref)

    def opener(named: ModelRef) -> Checkpoint:
        return open_checkpoint(named, locate)

    models = open_models(config, findings, opener)
    findings.check()
    return models[ref], models[base_ref]


def _read_reference(text: str) -> ModelRef:
    """`path[@revision][+lora[@revision]]`, as in recipes."""
    try:
        config = load_recipe({"merge_method": "passthrough", "models": [{"model": text}]})
    except RecipeError as error:
        # There is no recipe to point to.
        raise RecipeError([replace(problem, where=None) for problem in error.problems]) from None
    return replace(config.models[0].model, where=None)


class _Sorter:
    """Goes through the modules of two models; see `sort`."""

    def __init__(self, tuned: Model, base: Model, options: Options, filters: _Filters, findings: Findings) -> None:
        self._options, self._filters, self._findings = options, filters, findings
        self._tuned, self._base = tuned, base
        self.left_out: dict[str, str] = {}
        self._config = base.checkpoint.config
        #: The base has its token embedding for an output head, which PEFT would update together with it, or twice.
        self._tied = base.architecture.head is None and is_tied(self._config)
        roles = (find_role(*split_name(name), s.shape, self._config) for name, s in base.checkpoint.tensors.items())
        self.turned = "conv1d" in roles

    def sort(self) -> Iterator[Factors | Whole]:
        """What every module becomes."""
        modules: dict[str, dict[str | None, Source]] = {}
        for name, source in self._pick_tensors():
            module, end = split_name(name)
            modules.setdefault(module, {})[end] = source
        for module, ends in modules.items():
            yield from self._sort_module(module, ends)
        self._note()

    def _pick_tensors(self) -> Iterator[tuple[str, Source]]:
        """The model's tensors by name, with the embedding as the head where the base has one of its own."""
        mine, theirs = self._tuned.checkpoint.tensors, self._base.checkpoint.tensors
        yield from ((name, source) for name, source in mine.items() if not is_buffer(name, source.shape))
        head, embedding = self._base.architecture.head, self._tuned.architecture.embedding
        shared = head is not None and self._tuned.architecture.head is None and is_tied(self._tuned.checkpoint.config)
        if head is not None and embedding is not None and shared:
            yield head, mine[embedding]
        surplus = [
            n for n, s in theirs.items() if n not in mine and not is_buffer(n, s.shape) and not (shared and n == head)
        ]
        if surplus:
            self._findings.warn(
                f"the base has {len(surplus):,} tensors that the model lacks, such as {surplus[0]}; they stay the base's"
            )

    def _sort_module(self, module: str, ends: dict[str | None, Source]) -> Iterator[Factors | Whole]:
        end = "weight" if "weight" in ends else next(iter(ends))
        role = find_role(module, end, ends[end].shape, self._config)
        name = name_in_peft(module, self._base.architecture.embedding, self._config)
        saved = end is not None and self._filters.saves(name)
        reason = None if saved else self._filters.find(name, embedding=role in _EMBEDDINGS)
        if (
            reason is None
            and self._options.skip_undecomposable
            and not saved
            and role not in ("linear", "conv1d", *_EMBEDDINGS)
        ):
            reason = f"--skip-undecomposable: {_WHY[role]}"
        if reason is not None:
            self.left_out[name] = reason
            return
        tensors = [self._pair(name, module, each, source, role) for each, source in ends.items()]
        if not all(tensor and tensor.base for tensor in tensors) and role != "head":
            return  # a problem is reported
        whole = [tensor for tensor in tensors if tensor is not None]
        if not all(tensor.tuned.dtype.mergeable for tensor in whole):
            yield Whole(name, (), tuple(whole), f"of type {whole[0].tuned.dtype}", writable=False)
        elif saved or not self._decomposes(role, whole):
            yield from self._keep(name, role, saved, whole)
        else:
            yield from self._factorize(name, role, whole)

    def _pair(self, name: str, module: str, end: str | None, source: Source, role: str) -> WholeTensor | None:
        """A tensor with the base's; None, and a problem, where the base has none that fits."""
        full, tensors = f"{module}.{end}" if end else module, self._base.checkpoint.tensors
        other = tensors.get(full)
        if other is None and role == "head" and end == "weight" and self._base.architecture.embedding:
            other = tensors[self._base.architecture.embedding]
        if other is None:
            hint = "an adapter cannot add it; --exclude-regex leaves it out"
            self._findings.add(f'the base has no "{full}", which the model has', hint=hint)
            return None
        if source.shape != other.shape:
            if role not in ("embedding", "head") or len(source.shape) != 2 or source.shape[1:] != other.shape[1:]:
                said = f'"{full}" is {list(source.shape)} in the model and {list(other.shape)} in the base'
                self._findings.add(said, hint="is this the model that it comes from?", error=ShapeError)
                return None
            self._findings.warn(
                f"{name} has {source.shape[0]:,} rows, the base {other.shape[0]:,}: it is stored whole, if it differs; "
                f"with PEFT, call resize_token_embeddings({source.shape[0]}) on the base before the adapter is loaded"
            )
        return WholeTensor(f"{name}.{end}" if end else name, source, other, source.origin)

    def _decomposes(self, role: str, tensors: list[WholeTensor]) -> bool:
        weight = next((tensor for tensor in tensors if tensor.name.endswith(".weight")), None)
        if weight is None or weight.base is None or weight.base.shape != weight.tuned.shape or not weight.tuned.count:
            return False
        if role in _EMBEDDINGS:
            # PEFT has one orientation for all layers that are no embeddings.
            return self._options.embed_lora and not self._tied and not (self.turned and role == "head")
        return role == "conv1d" or (role == "linear" and not self.turned)

    def _factorize(self, name: str, role: str, tensors: list[WholeTensor]) -> Iterator[Factors | Whole]:
        kind = {"head": "linear", "positions": "embedding"}.get(role, role)
        for tensor in tensors:
            if tensor.name.endswith(".bias"):
                if self._options.skip_undecomposable:
                    self.left_out[tensor.name] = f"--skip-undecomposable: {_WHY['bias']}"
                else:
                    yield Whole(tensor.name, (), (tensor,), _WHY["bias"])
                continue
            assert tensor.base is not None
            rows, columns = tensor.tuned.shape
            rank = min(self._options.max_rank, rows, columns)
            method = choose_method((rows, columns), rank, self._options.method)  # type: ignore[arg-type]  # was checked
            yield Factors(name, tensor.tuned, tensor.base, kind, rank, self._dtype(tensor.tuned), method)

    def _keep(self, name: str, role: str, saved: bool, tensors: list[WholeTensor]) -> Iterator[Whole]:
        why = (
            "--save-module" if saved else _WHY.get(role, "stored as outputs x inputs, unlike the model's other layers")
        )
        if role == "parameter":
            yield Whole(name, (), tuple(tensors), why, writable=False)
        elif role == "bias":
            # A bias of its own is loaded by its name; a module of PEFT's would have to have a weight.
            yield Whole(name, (), tuple(tensors), why)
        elif role == "embedding" and self._tied and self._is_token_embedding(tensors[0]):
            # The base's head stays the base's embedding in PEFT, whatever becomes of the embedding.
            if self._tuned.architecture.head is None:
                tensors = [*tensors, WholeTensor("lm_head.weight", tensors[0].tuned, tensors[0].base, tensors[0].dtype)]
                yield Whole(
                    name, (name, "lm_head"), tuple(tensors), "a token embedding, and the output head that it is"
                )
            else:
                yield Whole(name, (name,), tuple(tensors), why)
        else:
            yield Whole(name, (name,), tuple(tensors), why)

    def _is_token_embedding(self, tensor: WholeTensor) -> bool:
        name = self._tuned.architecture.embedding
        return name is not None and self._tuned.checkpoint.tensors[name] is tensor.tuned

    def _dtype(self, source: Source) -> DType:
        if self._options.dtype is not None:
            return BY_NAME[self._options.dtype]
        return source.origin if _writes(source.origin.name) else BY_NAME["float32"]

    def _note(self) -> None:
        if self._options.embed_lora and self._tied:
            self._findings.warn(
                "--embed-lora has no effect: the output head is the token embedding, which PEFT would update twice; "
                "it is stored whole, if it differs"
            )
        if any(".experts." in name for name in self._base.checkpoint.tensors if last_part(name) not in ("gate",)):
            self._findings.warn(
                "the model has experts: transformers 5 keeps them as one tensor and gives modules other names, so that "
                "PEFT there does not load what an adapter says of them; pymerge does, as model: base+adapter"
            )


def _order(part: Factors | Whole) -> tuple[bool, int]:
    """What may be refused comes first; then wide types, so that all data is aligned."""
    if isinstance(part, Factors):
        return (True, -part.dtype.itemsize)
    return (part.writable, -max(tensor.dtype.itemsize for tensor in part.tensors))


def list_sources(part: Factors | Whole) -> Iterable[Source]:
    """What a part is read from."""
    if isinstance(part, Factors):
        return (part.tuned, part.base)
    return [source for tensor in part.tensors for source in (tensor.tuned, tensor.base) if source is not None]


def _fit(parts: Iterable[Factors | Whole], threads: int | None, memory: int | None) -> tuple[int, int]:
    """How many matrices may be decomposed side by side, and the bytes that they may take."""
    budget = memory or usable_memory()
    needs = [
        (_AT_REST + estimate_memory((rows, columns), part.rank, part.method), part)
        for part in parts
        if isinstance(part, Factors)
        for rows, columns in (part.tuned.shape,)
    ]
    count = threads or usable_processors()
    if not needs:
        return count, budget
    most, largest = max(needs, key=lambda each: each[0])
    if most > budget:
        way = "; --method randomized takes less" if largest.method == "exact" else ""
        raise ResourceError(
            f"{largest.module}: decomposing {list(largest.tuned.shape)} takes {most:,} bytes, and --memory is "
            f"{budget:,}; allow more{way}, or leave it out by --exclude-regex"
        )
    return max(1, min(count, (budget - _AT_REST) // (most - _AT_REST))), budget
