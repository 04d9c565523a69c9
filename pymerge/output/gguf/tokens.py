"""A tokenizer as metadata of a GGUF file: tokens by id, what kind each is, and how text is cut into them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pymerge.errors import FormatError, RecipeError
from pymerge.output.gguf.pairs import Integers, Value
from pymerge.vocabulary.reading import role_text
from pymerge.vocabulary.templates import find_template
from pymerge.vocabulary.values import Tokenizer

__all__ = ["describe_tokenizer"]

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_SPACE = "\u2581"

# How text is cut into words before merges are looked up; llama.cpp has these under names, and has to be told one.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PATTERNS = {_LLAMA3: "llama-bpe", _LLAMA3.replace("{1,3}", ""): "qwen2", _TEKKEN: "tekken"}
_LIKE = "name a GGUF file with the same vocabulary with --gguf-like, whose tokenizer is taken over"
#: Role -> key of its token's id ("seperator" is how it is spelled there).
_IDS = {
    "bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding",
    "sep_token": "seperator", "mask_token": "mask",
}  # fmt: skip


def describe_tokenizer(tokenizer: Tokenizer, rows: int, config: Mapping[str, Any]) -> dict[str, Value | None]:
    """Metadata `tokenizer.*`.

    Args:
        rows: of the embedding; ids without a token get one that says so.
        config: config.json of the output, for ids that the tokenizer's files do not name.

    Raises:
        RecipeError: llama.cpp knows no tokenizer of that kind, or none that cuts words that way.
        FormatError: merges are damaged.
    """
    tokens, kinds = _list_tokens(tokenizer, rows)
    pairs: dict[str, Value | None] = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": kinds}
    merges = _list_merges(tokenizer.document)
    if tokenizer.kind == "byte-level BPE":
        pairs["tokenizer.ggml.model"] = "gpt2"
        pairs["tokenizer.ggml.pre"] = _find_pattern(tokenizer)
        pairs["tokenizer.ggml.merges"] = [f"{left} {right}" for left, right in merges]
    elif tokenizer.kind == f"BPE with {_SPACE} for spaces":
        pairs["tokenizer.ggml.model"] = "llama"
        pairs["tokenizer.ggml.pre"] = "default"
        pairs["tokenizer.ggml.scores"] = _score(tokens, merges)
        pairs["tokenizer.ggml.add_space_prefix"] = _puts_space(tokenizer.document)
    else:
        raise RecipeError(f"{tokenizer.label} has a tokenizer of the kind {tokenizer.kind}; {_LIKE}")
    begins, ends = _find_frame(tokenizer)
    pairs["tokenizer.ggml.add_bos_token"], pairs["tokenizer.ggml.add_eos_token"] = begins, ends
    for role, key in _IDS.items():
        text = role_text(tokenizer.settings, role)
        number = tokenizer.ids.get(text) if text else None
        if number is None:
            # Some configs say -1 where there is none.
            said = config.get(f"{role}_id")
            number = said if type(said) is int and 0 <= said < rows else None
        pairs[f"tokenizer.ggml.{key}_token_id"] = number
    pairs["tokenizer.chat_template"] = find_template(tokenizer.folder, tokenizer.files)
    return pairs


def _list_tokens(tokenizer: Tokenizer, rows: int) -> tuple[list[str], Integers]:
    tokens = [f"[PAD{number}]" for number in range(rows)]
    kinds = Integers([_UNUSED] * rows)
    unknown = role_text(tokenizer.settings, "unk_token")
    spaced = tokenizer.kind.startswith("BPE with")
    for token, number in tokenizer.ids.items():
        added = tokenizer.added.get(token)
        # Text is looked through for these before spaces are marked.
        tokens[number] = token.replace(_SPACE, " ") if added and spaced and not added.special else token
        if spaced and token == unknown:
            kinds[number] = _UNKNOWN
        elif added:
            kinds[number] = _CONTROL if added.special else _USER_DEFINED
        else:
            kinds[number] = _BYTE if spaced and _is_byte(token) else _NORMAL
    return tokens, kinds


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _list_merges(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Pairs in the order in which they are merged; older files write a pair as one text."""
    found = []
    for entry in document["model"].get("merges") or ():
        pair = tuple(entry.split(" ", 1)) if isinstance(entry, str) else entry
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(each, str) for each in pair):
            raise FormatError(
                f"tokenizer.json of the base: an entry of merges is no pair ({str(entry)[:100]}); take the tokenizer's "
                "files from another copy of the model"
            )
        found.append((pair[0], pair[1]))
    return found


def _score(tokens: list[str], merges: list[tuple[str, str]]) -> list[float]:
    """Scores of which the highest is merged first: the ranks of merges, downwards; what none makes comes last."""
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        ranks.setdefault(left + right, rank)
    return [-float(ranks.get(token, len(merges))) for token in tokens]


def _iterate_steps(step: Any) -> Iterator[Mapping[str, Any]]:
    """The steps of a part of tokenizer.json, sequences opened up."""
    if isinstance(step, Mapping):
        yield step
        for key in ("pretokenizers", "normalizers", "processors"):
            for inner in step.get(key) or ():
                yield from _iterate_steps(inner)


def _find_pattern(tokenizer: Tokenizer) -> str:
    steps = [step for step in _iterate_steps(tokenizer.document.get("pre_tokenizer")) if step.get("type") != "Sequence"]
    kinds = [step.get("type") for step in steps]
    if kinds == ["Split", "ByteLevel"] and steps[1].get("use_regex") is False:
        pattern = (steps[0].get("pattern") or {}).get("Regex")
        if pattern in _PATTERNS:
            return _PATTERNS[pattern]
    elif kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    elif kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and steps[1].get("use_regex", True):
        return "smollm"
    raise RecipeError(f"{tokenizer.label} has a tokenizer that cuts words in a way that has no known name; {_LIKE}")


def _puts_space(document: Mapping[str, Any]) -> bool:
    """Whether text gets a space before it."""
    if any(step.get("type") == "Prepend" for step in _iterate_steps(document.get("normalizer"))):
        return True
    for step in _iterate_steps(document.get("pre_tokenizer")):
        if step.get("type") == "Metaspace":
            return bool(step.get("prepend_scheme", "never" if step.get("add_prefix_space") is False else "") != "never")
    return False


def _find_frame(tokenizer: Tokenizer) -> tuple[bool, bool]:
    """Whether text is put between the tokens for begin and end: as settings say, else as the last step does."""
    begins = ends = False
    for step in _iterate_steps(tokenizer.document.get("post_processor")):
        single = step.get("single")
        if step.get("type") == "TemplateProcessing" and isinstance(single, list) and single:
            begins = begins or "SpecialToken" in single[0]
            ends = ends or "SpecialToken" in single[-1]
    said = (tokenizer.settings.get(key) for key in ("add_bos_token", "add_eos_token"))
    found = [told if isinstance(told, bool) else shown for told, shown in zip(said, (begins, ends), strict=True)]
    return found[0], found[1]
