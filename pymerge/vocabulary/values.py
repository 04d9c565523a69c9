"""A model's tokenizer as its files say it, and the vocabulary that the output gets; frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymerge.checkpoint.sources import RowChoice
from pymerge.config.values import ModelRef
from pymerge.errors import Location, Problem, RecipeError

__all__ = ["FLAGS", "AddedToken", "Notes", "Tokenizer", "Vocabulary", "list_some"]

#: What tokenizer.json says of an added token besides its id and content.
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")

#: Tokens or models named in a line about many.
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is cut out of the text before the tokenizer's model sees it, flags as in tokenizer.json."""

    content: str
    special: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Tokenizer:
    """A model's tokenizer.

    Attributes:
        folder: of the model. files: the tokenizer's files, by name.
        document: tokenizer.json. settings: tokenizer_config.json, in which what special_tokens_map.json adds.
        kind: what has to agree for entries to be carried over, in words.
        plain: entry of the tokenizer's model -> id; those that are added tokens too are in `added` alone.
        added: by content, in order of their ids.
        ids: both, each below `rows`.
        beyond: tokens whose ids the embedding lacks, which are in none of the three.
        definitions: all added tokens, those in `beyond` included.
        rows: of the model's embedding; None if it has none here.
    """

    ref: ModelRef
    folder: Path
    files: Mapping[str, bytes]
    document: Mapping[str, Any]
    settings: Mapping[str, Any]
    kind: str
    plain: Mapping[str, int]
    added: Mapping[str, AddedToken]
    ids: Mapping[str, int]
    beyond: Mapping[str, int]
    definitions: Mapping[str, AddedToken]
    rows: int | None

    @property
    def label(self) -> str:
        """The model as messages name it."""
        return f'"{self.ref}"'


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """The output's tokenizer, and where each model's rows for it come from.

    Attributes:
        size: ids of the tokenizer, the highest plus one.
        rows: of the embedding (and the head), padding included.
        files: all of the tokenizer's files, by name; nothing else of this kind is to be copied.
        choices: for each model whose rows change, where each of `rows` rows comes from, and the models that its parts
            are, the model itself first. A model that is not here keeps its rows as they are.
        ids: token -> id.
        remarks: what the user should know, a line each.
        fates: what happened to each added token that not all models have, in a line.
        config_ids, generation_ids: what changes in config.json and generation_config.json (None: a token that is gone).
        template: the chat template; None if there is none.
    """

    size: int
    rows: int
    files: Mapping[str, bytes]
    choices: Mapping[ModelRef, tuple[RowChoice, tuple[ModelRef, ...]]]
    ids: Mapping[str, int]
    remarks: tuple[str, ...] = ()
    fates: Mapping[str, str] = field(default_factory=dict)
    config_ids: Mapping[str, int | list[int] | None] = field(default_factory=dict)
    generation_ids: Mapping[str, int | list[int] | None] = field(default_factory=dict)
    template: str | None = None


@dataclass(slots=True)
class Notes:
    """What is found on the way: remarks, and problems of the recipe that are raised together."""

    remarks: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add(self, message: str, where: Location | None, hint: str | None = None) -> None:
        """Add a mistake in the recipe."""
        self.problems.append(Problem(message, where, hint))

    def check(self) -> None:
        """Raise what was found.

        Raises:
            RecipeError: with every problem.
        """
        if self.problems:
            raise RecipeError(self.problems)


def list_some(names: list[str]) -> str:
    """The first few of many names, quoted, for a message."""
    return ", ".join(f'"{name}"' for name in names[:_SHOWN]) + (", ..." if names[_SHOWN:] else "")
