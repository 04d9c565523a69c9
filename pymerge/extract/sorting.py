"""Which module of a fine-tuned model becomes what in an adapter: factors, tensors as they are, or nothing."""

from __future__ import annotations

from collections.abc import Iterator

from pymerge.checkpoint import Source
from pymerge.checkpoint.names import is_buffer, last_part
from pymerge.dtypes import BY_NAME, DType
from pymerge.errors import ShapeError
from pymerge.extract.decompose import choose_method
from pymerge.extract.filters import Filters, writes
from pymerge.extract.roles import find_role, is_tied, name_in_peft, split_name
from pymerge.extract.values import Factors, Options, Whole, WholeTensor
from pymerge.plan.findings import Findings
from pymerge.plan.sources import Model

__all__ = ["Sorter"]

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


class Sorter:
    """Goes through the modules of two models; see `sort`."""

    def __init__(self, tuned: Model, base: Model, options: Options, filters: Filters, findings: Findings) -> None:
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
                f"the base has {len(surplus):,} tensors that the model lacks, such as {surplus[0]}; they stay as is"
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
        whole = [tensor for tensor in tensors if tensor is not None]
        if len(whole) < len(tensors):
            return  # a problem is reported
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
        if weight is None or weight.base.shape != weight.tuned.shape or not weight.tuned.count:
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
            rows, columns = tensor.tuned.shape
            rank = min(self._options.max_rank, rows, columns)
            method = choose_method((rows, columns), rank, self._options.method)
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
        if self._options.dtype in BY_NAME:
            return BY_NAME[self._options.dtype]
        return source.origin if writes(source.origin.name) else BY_NAME["float32"]

    def _note(self) -> None:
        if self._options.embed_lora and self._tied:
            self._findings.warn(
                "--embed-lora has no effect: the output head is the token embedding, which PEFT would update twice; "
                "it is stored whole, if it differs"
            )
        if lora := self._base.checkpoint.ref.lora:
            self._findings.warn(
                f"the adapter belongs on the base with {lora}, which adapter_config.json cannot say: merge that into "
                "the base before PEFT loads it"
            )
        embedding, head = self._base.architecture.embedding, self._base.architecture.head
        if embedding is not None and self._config.get("is_encoder_decoder"):
            self._findings.warn(
                f'encoder, decoder and output head may share "{embedding}", of which PEFT replaces one; where it '
                "differs, name model: base+adapter in a recipe instead"
            )
        if head is not None and last_part(head) == "embed_out":
            self._findings.warn(
                f'the output head is "{head}", and transformers 5 calls it lm_head: PEFT there does not load what an '
                "adapter says of it; pymerge does, as model: base+adapter"
            )
        if any(".experts." in name for name in self._base.checkpoint.tensors):
            self._findings.warn(
                "the model has experts: transformers 5 keeps them as one tensor and gives modules other names, so that "
                "PEFT there does not load what an adapter says of them; pymerge does, as model: base+adapter"
            )
