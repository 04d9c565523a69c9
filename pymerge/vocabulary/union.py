"""Which tokens the output has, and their ids: those of one tokenizer, and in a union what others add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pymerge.config.values import TokenRule
from pymerge.vocabulary.entries import first_free
from pymerge.vocabulary.values import FLAGS, AddedToken, Notes, Tokenizer, list_some

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
    special, plain, otherwise = [], [], []
    for content, token in other.added.items():
        first = blend.added.get(content) or blend.like.added.get(content)
        if first is None and content not in blend.ids:
            blend.added[content] = token
            blend.append(content)
        elif first is None and token.special:
            # Nothing may produce it unless it is cut out of texts.
            blend.added[content] = token
            blend.plain.pop(content, None)
            special.append(content)
        elif first is None:
            plain.append(content)
        elif first != token:
            otherwise.append(f'"{content}" ({_describe(token)}; first {_describe(first)})')
    if special:
        notes.remarks.append(f"special tokens of {other.label} that are plain entries before: {list_some(special)}")
    if plain:
        notes.remarks.append(
            f"added tokens of {other.label} that are plain entries before, and stay so: {list_some(plain)}"
        )
    if otherwise:
        notes.remarks.append(
            f"added tokens that {other.label} defines otherwise, of which the first definition holds: "
            f"{', '.join(otherwise[:3])}{', ...' if otherwise[3:] else ''}"
        )


def _describe(token: AddedToken) -> str:
    return ", ".join(flag for flag in FLAGS if getattr(token, flag)) or "not special"


def _define(tokenizers: Sequence[Tokenizer]) -> dict[str, AddedToken]:
    """The first definition of every added token, those of which the embedding lacks the row included."""
    return {content: token for each in reversed(tokenizers) for content, token in each.definitions.items()}


def _report_left(blend: Blend, others: Sequence[Tokenizer], notes: Notes) -> None:
    for other in others:
        left = [token for token in other.ids if token not in blend.ids]
        if left:
            kinds = f" (its tokenizer is {other.kind}, not {blend.like.kind})" if other.kind != blend.like.kind else ""
            notes.remarks.append(f"{len(left)} tokens of {other.label} are not in the output: {list_some(left)}{kinds}")
