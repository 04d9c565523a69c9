"""A recipe in memory: frozen values that mirror the YAML, each knowing its place in the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from pymerge.dtypes import DType
from pymerge.errors import Location, Problem

__all__ = [
    "Case",
    "Cases",
    "Filter",
    "Gradient",
    "Input",
    "MergeConfig",
    "ModelRef",
    "ModelToken",
    "Module",
    "Scalar",
    "Setting",
    "Slice",
    "Template",
    "TokenRule",
    "TokenizerSetting",
]

Scalar: TypeAlias = float | int | bool | str


@dataclass(frozen=True, slots=True)
class Gradient:
    """Values spread evenly over the layers of a slice."""

    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One entry of a conditional list; `filter` None (or "*") matches every tensor."""

    value: Scalar | Gradient
    filter: str | None
    where: Location | None = None


@dataclass(frozen=True, slots=True)
class Cases:
    """A conditional list: the first case whose filter is part of the tensor's name decides."""

    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """The value of one parameter at one level of a recipe."""

    value: Scalar | Gradient | Cases
    where: Location | None = None


Settings: TypeAlias = Mapping[str, Setting]


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model as a recipe names it. Two references are equal if they name the same weights."""

    path: str
    revision: str | None = None
    lora: str | None = None
    lora_revision: str | None = None
    override_architecture: str | None = None
    where: Location | None = field(default=None, compare=False)

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        lora_at = f"@{self.lora_revision}" if self.lora_revision else ""
        return f"{self.path}{at}" + (f"+{self.lora}{lora_at}" if self.lora else "")


@dataclass(frozen=True, slots=True)
class Input:
    """One model with its parameters; inside a slice also a half-open layer range.

    `where` is the place of the layer range if there is one, else of the whole entry.
    """

    model: ModelRef
    parameters: Settings = field(default_factory=dict)
    layer_range: tuple[int, int] | None = None
    where: Location | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """A run of output layers and where they come from."""

    sources: tuple[Input, ...]
    base_model: ModelRef | None = None
    parameters: Settings = field(default_factory=dict)
    where: Location | None = None


@dataclass(frozen=True, slots=True)
class Module:
    """A part of a model and what is merged in it. Exactly one of `models` and `slices` is not empty."""

    name: str
    models: tuple[Input, ...] = ()
    slices: tuple[Slice, ...] = ()
    parameters: Settings = field(default_factory=dict)
    where: Location | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """A part of tensor names, as `include` and `exclude` list them."""

    text: str
    where: Location | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ModelToken:
    """The row of some token of a model; exactly one of `token` and `token_id` is given."""

    model: ModelRef
    token: str | None = None
    token_id: int | None = None


@dataclass(frozen=True, slots=True)
class TokenRule:
    """What a recipe says of one token.

    Attributes:
        source: where its row comes from in models that lack the token: a model that has it, a token of a model,
            a row of zeros; None leaves that to the rules.
        force: models that have the token get that row too.
    """

    source: ModelRef | ModelToken | Literal["zero"] | None = None
    force: bool = False
    where: Location | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class TokenizerSetting:
    """Which tokenizer the output gets; models that are named here need not be merged.

    Attributes:
        source: "union", "base", or the model whose tokenizer it is.
        tokens: rules by token.
        pad_to_multiple_of: what the embedding's number of rows is rounded up to.
    """

    source: ModelRef | Literal["union", "base"] = "union"
    tokens: Mapping[str, TokenRule] = field(default_factory=dict)
    pad_to_multiple_of: int | None = None
    where: Location | None = field(default=None, compare=False)

    def map_references(self, move: Callable[[ModelRef], ModelRef]) -> TokenizerSetting:
        """The same, with other models in place of those that are named."""

        def move_rule(rule: TokenRule) -> TokenRule:
            source = rule.source
            if isinstance(source, ModelToken):
                return replace(rule, source=replace(source, model=move(source.model)))
            return replace(rule, source=move(source)) if isinstance(source, ModelRef) else rule

        source = move(self.source) if isinstance(self.source, ModelRef) else self.source
        return replace(self, source=source, tokens={token: move_rule(rule) for token, rule in self.tokens.items()})

    @property
    def references(self) -> tuple[ModelRef, ...]:
        """Every model that is named here, once."""
        named = [self.source, *(rule.source for rule in self.tokens.values())]
        models = [each.model if isinstance(each, ModelToken) else each for each in named]
        return tuple(dict.fromkeys(each for each in models if isinstance(each, ModelRef)))


@dataclass(frozen=True, slots=True)
class Template:
    """A chat template as a recipe gives it: "auto", the name of a built-in one, or Jinja."""

    text: str
    where: Location | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class MergeConfig:
    """A whole recipe. Exactly one of `models`, `slices` and `modules` is not empty.

    Attributes:
        text: the YAML, verbatim.
        name: file name for messages.
        dtype, out_dtype: as the recipe gives them; the stored type is out_dtype or dtype.
        include, exclude: which tensors are merged; the others stay as the base has them.
        tokenizer, chat_template: None leaves both as the base, or the first model, has them.
        stage: the document's name; stages: those that the result needs, in the order in which they are made.
        where: the document's place.
        warnings: tolerated problems found while reading.
    """

    merge_method: str
    models: tuple[Input, ...] = ()
    slices: tuple[Slice, ...] = ()
    modules: tuple[Module, ...] = ()
    base_model: ModelRef | None = None
    parameters: Settings = field(default_factory=dict)
    dtype: DType | None = None
    out_dtype: DType | None = None
    text: str = ""
    name: str = "<recipe>"
    method_where: Location | None = None
    include: tuple[Filter, ...] = ()
    exclude: tuple[Filter, ...] = ()
    tokenizer: TokenizerSetting | None = None
    chat_template: Template | None = None
    stage: str | None = None
    stages: tuple[MergeConfig, ...] = ()
    where: Location | None = None
    warnings: tuple[Problem, ...] = ()

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Every model with its parameters, as listed."""
        slices = (*self.slices, *(piece for module in self.modules for piece in module.slices))
        listed = (*self.models, *(entry for module in self.modules for entry in module.models))
        return (*listed, *(source for piece in slices for source in piece.sources))

    @property
    def bases(self) -> tuple[ModelRef, ...]:
        """Every base model that is named."""
        slices = (*self.slices, *(piece for module in self.modules for piece in module.slices))
        named = (*(piece.base_model for piece in slices), self.base_model)
        return tuple(base for base in named if base is not None)
