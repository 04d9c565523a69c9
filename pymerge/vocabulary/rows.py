"""Where each row of the output's embedding comes from, in each model that is merged."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from pymerge.checkpoint.sources import RowChoice
from pymerge.config.values import ModelRef, ModelToken, TokenRule
from pymerge.vocabulary.values import Notes, Tokenizer, list_some

__all__ = ["Row", "choose_defaults", "choose_rows"]

#: One row of a model's matrix; -1 is the mean of all of them.
Row: TypeAlias = "tuple[ModelRef, int]"


def choose_defaults(
    ids: Mapping[str, int],
    merged: Sequence[Tokenizer],
    others: Sequence[Tokenizer],
    base: Tokenizer | None,
    rules: Mapping[str, TokenRule],
    notes: Notes,
) -> dict[str, tuple[Row, ...]]:
    """What stands in for the row of a token in models that lack it: the mean of these rows, none is zeros.

    Tokens that all models have and no rule names are left out.

    Args:
        ids: the output's tokens.
        merged: the tokenizers of models that are merged, in the recipe's order.
        others: those of models that only the tokenizer setting names; asked if none of the merged has a token.
        base: the one whose row is preferred: that of base_model, if the recipe names one.
        rules: what the recipe says, which comes first.
    """
    by_ref = {each.ref: each for each in (*others, *merged)}
    lone: list[str] = []
    defaults = {}
    common = set(merged[0].ids).intersection(*(each.ids for each in merged))
    for token in ids:
        if token in common and token not in rules:
            continue
        rule = rules.get(token)
        if rule is not None and rule.source is not None:
            defaults[token] = _follow(token, rule, by_ref, notes)
            continue
        having = [each for each in merged if token in each.ids]
        having = having or [each for each in others if token in each.ids and each.rows is not None][:1]
        if base is not None and base in having:
            having = [base]
        if not having:
            lone.append(token)
        defaults[token] = tuple((each.ref, each.ids[token]) for each in having)
    if lone:
        notes.remarks.append(f"no model has a row for {list_some(lone)} ({len(lone)} in all): they get zeros")
    return defaults


def _follow(token: str, rule: TokenRule, by_ref: Mapping[ModelRef, Tokenizer], notes: Notes) -> tuple[Row, ...]:
    """The row that a rule names; what it names wrongly is a problem."""
    source = rule.source
    if not isinstance(source, (ModelRef, ModelToken)):
        return ()
    ref = source.model if isinstance(source, ModelToken) else source
    donor = by_ref.get(ref)
    where = ref.where or rule.where
    if donor is None or donor.rows is None:
        notes.add(f'token "{token}": "{ref}" has no embedding to take a row from', where, "name a model with weights")
        return ()
    if isinstance(source, ModelToken) and source.token_id is not None:
        if source.token_id >= donor.rows:
            hint = f"0 to {donor.rows - 1}"
            notes.add(f'token "{token}": "{ref}" has no row {source.token_id}, it has {donor.rows}', where, hint)
        return ((ref, source.token_id),)
    name = source.token if isinstance(source, ModelToken) else token
    if name not in donor.ids:
        beyond = " (its tokenizer has, its embedding is too short)" if name in donor.beyond else ""
        notes.add(
            f'token "{token}": "{ref}" has no row for "{name}"{beyond}',
            where,
            "name a model that has it, or {kind: model_token, model: ..., token: ...}",
        )
        return ()
    return ((ref, donor.ids[name or ""]),)


def choose_rows(
    model: Tokenizer,
    rows: int,
    ids: Mapping[str, int],
    defaults: Mapping[str, tuple[Row, ...]],
    forced: frozenset[str],
) -> tuple[RowChoice, tuple[ModelRef, ...]] | None:
    """Where the output's rows come from in one model; None if its rows stay as they are.

    Args:
        model: with the number of its rows.
        rows: of the output; a row that no token has is padding.
        ids: the output's tokens.
        defaults: rows for tokens that the model lacks.
        forced: tokens for which the model's own row does not count.

    Returns:
        The choice, and the models that its parts are, this one first.
    """
    own_rows = model.rows or 0
    if model.ids == ids and own_rows == rows and not forced:
        return None
    tokens = {number: token for token, number in ids.items()}
    used = set(model.ids.values())
    parts = {model.ref: 0}
    starts, which, where = array("q", [0]), array("q"), array("q")
    for number in range(rows):
        token = tokens.get(number)
        if token is None:
            # What is padding in the model too stays as it is.
            kept = number < own_rows and number not in used
            found: tuple[Row, ...] = ((model.ref, number if kept else -1),)
        elif token in model.ids and token not in forced:
            found = ((model.ref, model.ids[token]),)
        else:
            found = defaults[token]
        for ref, row in found:
            which.append(parts.setdefault(ref, len(parts)))
            where.append(row)
        starts.append(len(where))
    if rows == own_rows and len(parts) == 1 and starts[:-1] == where == array("q", range(rows)):
        return None
    return RowChoice(starts, which, where), tuple(parts)
