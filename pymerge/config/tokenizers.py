"""What a recipe says of tokenizer and chat template: `tokenizer_source`, `tokenizer`, `chat_template`."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias

from pymerge.config.nodes import Leaf, Node, Table
from pymerge.config.references import read_reference
from pymerge.config.suggestions import suggest_name
from pymerge.config.values import ModelRef, ModelToken, Template, TokenizerSetting, TokenRule
from pymerge.errors import Problem

__all__ = ["BUILT_IN_TEMPLATES", "read_chat_template", "read_tokenizer"]

#: Texts: pymerge/vocabulary/templates.
BUILT_IN_TEMPLATES = ("alpaca", "chatml", "exaone", "llama3", "mistral")

#: Characters of a literal template at least; what is shorter is a name that nobody knows.
_SHORTEST = 20

#: Rows of an embedding are padded to what suits a GPU's kernels, 8 to 512.
_MOST_PADDING = 65536

_SETTING_KEYS = ("source", "tokens", "pad_to_multiple_of")
_RULE_KEYS = ("source", "force")
_SOURCE_KEYS = {"zero": ("kind",), "model_token": ("kind", "model", "token", "token_id")}

_Row: TypeAlias = "ModelRef | ModelToken | Literal['zero']"


def read_tokenizer(root: Table, problems: list[Problem]) -> TokenizerSetting | None:
    """Read whichever form a recipe has; None if it has neither, or none that can be understood."""
    short, long = _find(root, "tokenizer_source"), _find(root, "tokenizer")
    if short is not None and long is not None:
        places = [root.entries[key].where for key in ("tokenizer", "tokenizer_source")]
        later = max(places, key=lambda where: (where.line, where.column))
        problems.append(
            Problem("tokenizer_source and tokenizer are both given", later, "keep one: tokenizer: {source: ...}")
        )
        return None
    if short is not None:
        source = _read_source(short, problems)
        return None if source is None else TokenizerSetting(source, where=short.where)
    return None if long is None else _read_setting(long, problems)


def read_chat_template(root: Table, problems: list[Problem]) -> Template | None:
    """Read `chat_template`; whether literal Jinja can be rendered is not tried."""
    node = _find(root, "chat_template")
    if node is None:
        return None
    text = node.text.strip() if isinstance(node, Leaf) else ""
    if text in ("auto", *BUILT_IN_TEMPLATES):
        return Template(text, node.where)
    if isinstance(node, Leaf) and len(text) >= _SHORTEST and "{" in text:
        return Template(node.text, node.where)
    hint = f"auto, {', '.join(BUILT_IN_TEMPLATES)}, or Jinja of at least {_SHORTEST} characters"
    if isinstance(node, Leaf) and "did you mean" in (near := suggest_name(text, BUILT_IN_TEMPLATES, "templates")):
        hint = near
    problems.append(Problem(f'"{text}" is no chat template', node.where, hint))
    return None


def _find(table: Table, key: str) -> Node | None:
    """The value of a key; null counts as absent."""
    entry = table.entries.get(key)
    if entry is None or (isinstance(entry.node, Leaf) and entry.node.value is None):
        return None
    return entry.node


def _check_keys(table: Table, known: tuple[str, ...], where: str, problems: list[Problem]) -> None:
    for key, entry in table.entries.items():
        if key not in known:
            hint = suggest_name(key, known, "keys here")
            problems.append(Problem(f'unknown key "{key}" in {where}', entry.where, hint, True))


def _read_setting(node: Node, problems: list[Problem]) -> TokenizerSetting | None:
    if not isinstance(node, Table):
        word = node.text if isinstance(node, Leaf) else "union"
        problems.append(Problem("tokenizer must be a mapping", node.where, f"tokenizer: {{source: {word}}}"))
        return None
    _check_keys(node, _SETTING_KEYS, "tokenizer", problems)
    named = _find(node, "source")
    source = "union" if named is None else _read_source(named, problems)
    tokens = _read_rules(_find(node, "tokens"), problems)
    multiple = _read_multiple(_find(node, "pad_to_multiple_of"), problems)
    return None if source is None else TokenizerSetting(source, tokens, multiple, node.where)


def _read_source(node: Node, problems: list[Problem]) -> ModelRef | Literal["union", "base"] | None:
    if isinstance(node, Leaf):
        word = node.text.strip()
        if word == "union":
            return "union"
        if word == "base":
            return "base"
        path = word.removeprefix("model:")
        node = replace(node, text=path, value=path if word != path else node.value)
    return read_reference(node, problems)


def _read_rules(node: Node | None, problems: list[Problem]) -> dict[str, TokenRule]:
    if node is None:
        return {}
    if not isinstance(node, Table):
        problems.append(Problem("tokens must be a mapping", node.where, 'tokens: {"<pad>": {source: ...}}'))
        return {}
    rules = {}
    for token, entry in node.entries.items():
        rule = _read_rule(token, entry.node, problems)
        if not token:
            problems.append(Problem("an empty token", entry.where, "name the token as the tokenizer writes it"))
        elif rule is not None:
            rules[token] = replace(rule, where=entry.where)
    return rules


def _read_rule(token: str, node: Node, problems: list[Problem]) -> TokenRule | None:
    if isinstance(node, Leaf) and node.value is None:
        return TokenRule()
    if not isinstance(node, Table):
        problems.append(
            Problem(
                f'token "{token}": expected a mapping', node.where, "{source: a model, or {kind: zero}, force: ...}"
            )
        )
        return None
    _check_keys(node, _RULE_KEYS, "a token's rule", problems)
    force = _find(node, "force")
    if force is not None and not (isinstance(force, Leaf) and isinstance(force.value, bool)):
        problems.append(Problem(f'token "{token}": force must be true or false', force.where))
        return None
    forced = isinstance(force, Leaf) and force.value is True
    named = _find(node, "source")
    if named is None:
        return TokenRule(None, forced)
    source = _read_row(token, named, problems)
    return None if source is None else TokenRule(source, forced)


def _read_row(token: str, node: Node, problems: list[Problem]) -> _Row | None:
    """Read a token's source: a model, or a mapping with a kind."""
    if not isinstance(node, Table) or "kind" not in node.entries:
        return read_reference(node, problems)
    kind = node.entries["kind"].node
    word = kind.text if isinstance(kind, Leaf) else ""
    if word not in _SOURCE_KEYS:
        problems.append(
            Problem(f'token "{token}": unknown kind "{word}"', kind.where, suggest_name(word, _SOURCE_KEYS, "kinds"))
        )
        return None
    _check_keys(node, _SOURCE_KEYS[word], f"a source of kind {word}", problems)
    return "zero" if word == "zero" else _read_model_token(token, node, problems)


def _read_model_token(token: str, table: Table, problems: list[Problem]) -> ModelToken | None:
    named, text, number = (_find(table, key) for key in ("model", "token", "token_id"))
    if named is None or (text is None) == (number is None):
        problems.append(
            Problem(
                f'token "{token}": model_token needs model, and either token or token_id',
                table.where,
                "{kind: model_token, model: path, token: ...}",
            )
        )
        return None
    model = read_reference(named, problems)
    wrong = "token must be text" if text is not None else "token_id must be a whole number from 0 on"
    value = None if number is None else _read_count(number)
    if (not isinstance(text, Leaf)) if text is not None else (value is None):
        problems.append(Problem(f'token "{token}": {wrong}', (text or number or table).where))
        return None
    return None if model is None else ModelToken(model, text.text if isinstance(text, Leaf) else None, value)


def _read_multiple(node: Node | None, problems: list[Problem]) -> int | None:
    if node is None:
        return None
    value = _read_count(node)
    if value is None or not 1 <= value <= _MOST_PADDING:
        problems.append(
            Problem(
                f"pad_to_multiple_of must be a whole number from 1 to {_MOST_PADDING}", node.where, "8, 64, 128, ..."
            )
        )
        return None
    return value


def _read_count(node: Node) -> int | None:
    if not isinstance(node, Leaf) or isinstance(node.value, bool) or not isinstance(node.value, int):
        return None
    return node.value if node.value >= 0 else None
