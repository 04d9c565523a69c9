"""Which tokens the output has, and their ids: those of one tokenizer, and in a union what others add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pymerge.config.values import TokenRule
from pymerge.vocabulary.entries import first_free
from pymerge.vocabulary.values import AddedToken, Notes, Tokenizer, list_some

__all__ = ["Blend", "blend_tokens"]


@dataclass(slots=True)
class Blend:
    """The output's tokens, as changes to one tokenizer.

    Attributes:
        like: the tokenizer that is kept, with its ids.
        ids: token -> id.
        plain: new entries of its model, in order, each with the tokenizer it comes from.
        added: the added tokens that are new, or were plain entries before.
        free: the next id.
    """

    like: Tokenizer
    ids: dict[str, int]
    plain: dict[str, Tokenizer] = field(default_factory=dict)
    added: dict[str, AddedToken] = field(default_factory=dict)
    free: int = 0
    taken: set[int] = field(default_factory=set)

    @property
    def changed(self) -> bool:
        """True if the files of `like` do not say what the output's tokens are."""
        return bool(self.plain or self.added or self.like.beyond)

    def append(self, token: str) -> None:
        """Give a token the next free id."""
        while self.free in self.taken:
            self.free += 1
        self.ids[token] = self.free
        self.taken.add(self.free)


def blend_tokens(
    like: Tokenizer,
    merged: Sequence[Tokenizer],
    extra: Sequence[Tokenizer],
    rules: Mapping[str, TokenRule],
    union: bool,
    notes: Notes,
) -> Blend:
    """Work out the output's tokens.

    Args:
        like: the tokenizer that is kept.
        merged: those of all models that are merged, in the recipe's order.
        extra: those of other models, which only define added tokens.
        rules: tokens that the recipe names; they are added if they are new.
        union: take over what the others add.

    Raises:
        RecipeError: a union of tokenizers of different kinds.
    """
    others = [each for each in merged if each is not like]
    blend = Blend(
        like, dict(like.ids), free=first_free(like.document, like.ids, like.rows), taken=set(like.ids.values())
    )
    if union:
        for other in others:
            _refuse_kind(like, other, notes)
        notes.check()
        for other in others:
            _take_plain(blend, other, notes)
        for other in others:
            _take_added(blend, other, notes)
    definitions = _define((like, *others, *extra))
    for token in rules:
        if token not in blend.ids:
            blend.added[token] = definitions.get(token, AddedToken(token))
            blend.append(token)
    if not union:
        _report_left(blend, others, notes)
    return blend


def _refuse_kind(like: Tokenizer, other: Tokenizer, notes: Notes) -> None:
    if other.kind != like.kind:
        notes.add(
            f"a union needs tokenizers of one kind: that of {like.label} is {like.kind}, "
            f"that of {other.label} {other.kind}",
            other.ref.where or like.ref.where,
            f"tokenizer_source: base keeps one tokenizer and takes over the rows of tokens that are spelled alike; "
            f"so does tokenizer_source: {other.ref}",
        )


def _take_plain(blend: Blend, other: Tokenizer, notes: Notes) -> None:
    new = [token for token in other.plain if token not in blend.ids]
    for token in new:
        blend.append(token)
        blend.plain[token] = other
    if new:
        notes.remarks.append(f"{len(new)} entries of the tokenizer of {other.label} are added: {list_some(new)}")
    steps = [key for key in ("normalizer", "pre_tokenizer") if other.document.get(key) != blend.like.document.get(key)]
    if steps:
        notes.remarks.append(
            f"{' and '.join(steps)} of the tokenizers of {blend.like.label} and {other.label} differ: "
            f"text is prepared as {blend.like.label} does"
        )


def _take_added(blend: Blend, other: Tokenizer, notes: Notes) -> None:
    for content, token in other.added.items():
        first = blend.added.get(content) or blend.like.added.get(content)
        if first is None and content in blend.ids:
            _promote(blend, token, other, notes)
        elif first is None:
            blend.added[content] = token
            blend.append(content)
        elif first != token:
            notes.remarks.append(
                f'the added token "{content}" is defined otherwise in {other.label} ({_describe(token)}): '
                f"the first definition holds ({_describe(first)})"
            )


def _promote(blend: Blend, token: AddedToken, other: Tokenizer, notes: Notes) -> None:
    """A special token of one model is a plain entry of another: cut out of texts it must be, or nothing produces it."""
    if token.special:
        blend.added[token.content] = token
        blend.plain.pop(token.content, None)
    said = "it becomes a special one" if token.special else "it stays one"
    notes.remarks.append(f'"{token.content}", an added token of {other.label}, is a plain entry before: {said}')


def _describe(token: AddedToken) -> str:
    flags = ("special", "single_word", "lstrip", "rstrip", "normalized")
    return ", ".join(flag for flag in flags if getattr(token, flag)) or "no flags"


def _define(tokenizers: Sequence[Tokenizer]) -> dict[str, AddedToken]:
    """The first definition of every added token, those of which the embedding lacks the row included."""
    return {content: token for each in reversed(tokenizers) for content, token in each.definitions.items()}


def _report_left(blend: Blend, others: Sequence[Tokenizer], notes: Notes) -> None:
    for other in others:
        left = [token for token in other.ids if token not in blend.ids]
        if left:
            kinds = f" (its tokenizer is {other.kind}, not {blend.like.kind})" if other.kind != blend.like.kind else ""
            notes.remarks.append(f"{len(left)} tokens of {other.label} are not in the output: {list_some(left)}{kinds}")
