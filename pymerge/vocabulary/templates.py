"""Chat templates: finding those of models, choosing one, and putting it where the output's files keep theirs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pymerge.checkpoint.json_files import parse_json
from pymerge.checkpoint.tokenizer_files import TEMPLATE_FOLDER
from pymerge.config.values import Template
from pymerge.errors import FormatError
from pymerge.vocabulary.built_in import MARKERS, TEMPLATES
from pymerge.vocabulary.encoding import dump, encode
from pymerge.vocabulary.reading import SETTINGS
from pymerge.vocabulary.values import Notes

__all__ = ["check_markers", "choose_template", "compare_templates", "find_template", "put_template"]

_JINJA, _PROCESSOR = "chat_template.jinja", "chat_template.json"


def find_template(folder: Path, files: Mapping[str, bytes]) -> str | None:
    """The chat template of a model, of several named ones its default; stripped, None if it is empty.

    Raises:
        FormatError: a file that may hold one is damaged.
    """
    if _JINJA in files:
        try:
            return files[_JINJA].decode("utf-8").strip() or None
        except UnicodeDecodeError as error:
            raise FormatError(f"{folder / _JINJA}: not text in UTF-8 (byte {error.start})") from None
    for name in (SETTINGS, _PROCESSOR):
        value = parse_json(folder / name, files[name]).get("chat_template") if name in files else None
        text = _find_default(value)
        if text:
            return text
    return None


def _find_default(value: Any) -> str | None:
    if isinstance(value, list):
        value = {each.get("name"): each.get("template") for each in value if isinstance(each, dict)}
    if isinstance(value, dict):
        value = value.get("default")
    return value.strip() or None if isinstance(value, str) else None


def choose_template(template: Template, found: Mapping[str, str | None], notes: Notes) -> str | None:
    """The text that a recipe's `chat_template` stands for; `found` are the models', by label and in order."""
    if template.text != "auto":
        return TEMPLATES.get(template.text, template.text)
    counts = Counter(text for text in found.values() if text)
    if not counts:
        notes.remarks.append("chat_template: auto finds none: no model has a chat template")
        return None
    text = counts.most_common(1)[0][0]
    compare_templates(found, next(label for label, each in found.items() if each == text), notes)
    return text


def compare_templates(found: Mapping[str, str | None], kept: str, notes: Notes) -> None:
    """Remark on chat templates that differ; `found` as above, `kept` is the label of whose the output has."""
    groups: dict[str | None, list[str]] = {}
    for label, text in found.items():
        groups.setdefault(text, []).append(label)
    if len(groups) > 1:
        told = "; ".join(f"{_outline(text)} in {' and '.join(labels)}" for text, labels in groups.items())
        notes.remarks.append(f"models disagree on the chat template: {told}. The output has that of {kept}")


def _outline(text: str | None) -> str:
    if text is None:
        return "none"
    words = " ".join(text.split())
    return f"{len(text)} characters ({words[:30]} ... {words[-30:]})" if len(words) > 60 else words


def check_markers(template: Template, fast: str, notes: Notes) -> None:
    """Remark on marks of a built-in template that the tokenizer cuts into pieces; `fast` is its tokenizer.json."""
    missing = [mark for mark in MARKERS.get(template.text, ()) if f'"{mark}"' not in fast]
    if missing:
        notes.remarks.append(
            f"chat_template: {template.text} writes {', '.join(missing)}, for which the output has no tokens; "
            "tokenizer: {tokens: ...} can add them"
        )


def put_template(files: Mapping[str, bytes], folder: Path, text: str, notes: Notes) -> dict[str, bytes]:
    """The files with another chat template, in tokenizer_config.json or where they have it already."""
    changed = {name: content for name, content in files.items() if not name.startswith(f"{TEMPLATE_FOLDER}/")}
    settings = parse_json(folder / SETTINGS, files[SETTINGS]) if SETTINGS in files else {}
    before = settings.pop("chat_template", None)
    if len(changed) < len(files) or (isinstance(before, (list, dict)) and len(before) > 1):
        notes.remarks.append("the models' other named chat templates are left out: the recipe gives one")
    if _JINJA in files:
        changed[_JINJA] = encode(text)
    else:
        settings["chat_template"] = text
    if _PROCESSOR in files:
        changed[_PROCESSOR] = dump({"chat_template": text})
    if _JINJA not in files or before is not None:
        changed[SETTINGS] = dump(settings)
    return changed
