"""How a merge method is declared: parameters, arity, base rule, and its program.

A method is one file that builds one `Method`; nothing else in the tree names it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias

from pymerge.ops import Program

__all__ = ["REQUIRED", "BaseRule", "Inputs", "Method", "Parameter", "Value"]

Value: TypeAlias = float | int | bool | str


class _Required:
    """The default of a parameter that has none."""

    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required()


class BaseRule(Enum):
    """What a method does with the recipe's `base_model`."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    #: The base is an input like any other (linear); if not listed it is added, as the peer does.
    INPUT = "input"
    #: Only the single input itself may be named as base (passthrough).
    SELF = "self"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a method, as recipes spell it.

    Attributes:
        kind: float, int, bool, or str (with `choices`); bool parameters also accept numbers as
            the peer does (0 and 1); a parameter with `choices` accepts bool spellings listed there.
        default: REQUIRED if the recipe must give it; None if absent means "not used".
        per_model: resolved once per input model (else once per output tensor).
        minimum, maximum: inclusive bounds; `open_minimum` makes the lower one exclusive.
        choices: accepted values of a str parameter.
    """

    name: str
    kind: type
    doc: str
    default: Value | _Required | None = REQUIRED
    per_model: bool = False
    minimum: float | None = None
    maximum: float | None = None
    open_minimum: bool = False
    choices: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class Inputs:
    """One output tensor as its method's program sees it; no data, only positions and numbers.

    Attributes:
        name: the output tensor's name.
        count: elements in the tensor.
        base: position of the base among the task's sources (None where the method has none).
        models: positions of the other sources, in recipe order.
        values: the global parameters, resolved and defaulted.
        per_model: for each per-model parameter, its values aligned with `models`.
        places: the recipe's place of each entry of `models` (0-based), which keys its random
            stream; differs from the position if a model lacks an optional tensor.
        seed: the recipe's random seed.
        wide: the task computes in float64, not in float32: cuts are bits of that type.
        shape: the tensor's.
        layer: a name for the output's layer that it belongs to; empty outside of all layers.
    """

    name: str
    count: int
    base: int | None
    models: tuple[int, ...]
    values: Mapping[str, Value | None] = field(default_factory=dict)
    per_model: Mapping[str, tuple[Value | None, ...]] = field(default_factory=dict)
    places: tuple[int, ...] = ()
    seed: int = 0
    wide: bool = False
    shape: tuple[int, ...] = ()
    layer: str = ""

    def number(self, name: str) -> float:
        """A global float or int parameter."""
        value = self.values[name]
        assert isinstance(value, (int, float)), name
        return float(value)

    def flag(self, name: str) -> bool:
        """A global bool parameter."""
        return bool(self.values[name])

    def numbers(self, name: str) -> tuple[float, ...]:
        """A per-model parameter, one float per entry of `models`."""
        return tuple(float(value) for value in self.per_model[name] if value is not None)

    def stream(self, index: int) -> int:
        """The 64-bit key of the random stream of `models[index]`.

        A strong hash of seed, tensor name and place: neighboring seeds or places share nothing.
        """
        text = f"{self.seed}\0{self.name}\0{self.places[index]}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


@dataclass(frozen=True, slots=True)
class Method:
    """A merge method.

    Attributes:
        name: as `merge_method:` spells it.
        title, formula, reference: one line each for `pymerge methods` and the docs.
        base: what becomes of `base_model`.
        minimum, maximum: how many models besides the base (all of them under INPUT and SELF);
            maximum None is unlimited.
        parameters: what it reads; anything else in a recipe is an error.
        program: the generator function, called once per output tensor.
        instead: what to do with more models than it takes.
    """

    name: str
    title: str
    formula: str
    reference: str
    base: BaseRule
    program: Callable[[Inputs], Program]
    parameters: tuple[Parameter, ...] = ()
    minimum: int = 1
    maximum: int | None = None
    instead: str = ""
