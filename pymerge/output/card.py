"""README.md of an output folder: the front matter that model hubs read, and how it was made."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from pymerge.errors import printable
from pymerge.output.files import write_text
from pymerge.plan.values import MergePlan

__all__ = ["CARD", "escape", "find_hub_id", "make_adapter_card", "make_card", "write_card"]

CARD = "README.md"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# A model in the hub's local cache: .../models--owner--name/snapshots/<commit>
_CACHED = re.compile(r"models--([\w.-]+?)--([\w.-]+?)/snapshots/[0-9a-f]+/?$")
_TAGS = ["pymerge", "mergekit", "merge"]


def write_card(plan: MergePlan, folder: Path) -> None:
    """Write the model card of `plan` into `folder`."""
    write_text(folder / CARD, make_card(plan, folder.resolve().name))


def make_card(plan: MergePlan, title: str) -> str:
    """The model card's text; `title` is the model's name, usually its folder's.

    Local paths are named by their last part alone: cards get published.
    """
    stages = [str(stage.stage) for stage in plan.config.stages]
    base = plan.config.base_model
    if base is not None and base.path in stages:
        base = None
    others = [model.ref for model in plan.models if model.ref != base]
    hub_ids = list(dict.fromkeys(filter(None, (find_hub_id(model.ref.path) for model in plan.models))))
    front = {
        **({"base_model": hub_ids} if hub_ids else {}),
        "library_name": "transformers",
        "tags": _TAGS,
    }
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {escape(title)}",
        f"A merge of language models made with pymerge, method {_quote(plan.method.name)} "
        f"({plan.method.title}; {plan.method.reference}).",
        f"Made in {len(stages) + 1} stages, of which this is the last." if stages else "",
        f"Base model: {_quote(_shorten(base.path))}" if base else "",
        "Models:\n\n" + "\n".join(f"* {_quote(_shorten(ref.path))}" for ref in others) if others else "",
        f"Recipe:\n\n{_fence(plan.config.text)}" if plan.config.text else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def make_adapter_card(plan: MergePlan, title: str) -> str:
    """The card's text of an adapter that is a sum of adapters of one base."""
    base = plan.models[0].ref.path
    hub_id = find_hub_id(base)
    front = {
        **({"base_model": hub_id, "base_model_relation": "adapter"} if hub_id else {}),
        "library_name": "peft",
        "tags": ["pymerge", "lora", "merge"],
    }
    adapters = dict.fromkeys(model.ref.lora for model in plan.models if model.ref.lora)
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {escape(title)}",
        f"A LoRA adapter of {_quote(_shorten(base))}: the weighted sum of what others add to it, made with pymerge, "
        f"method {_quote(plan.method.name)} ({plan.method.title}; {plan.method.reference}).",
        "Adapters:\n\n" + "\n".join(f"* {_quote(_shorten(path))}" for path in adapters),
        f"Recipe:\n\n{_fence(plan.config.text)}" if plan.config.text else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def find_hub_id(path: str) -> str | None:
    """`owner/name` if `path` is such an id, or a folder in the hub's cache; else None.

    A relative folder of that shape counts too: nothing but its owner can tell them apart.
    """
    if cached := _CACHED.search(path):
        return f"{cached[1]}/{cached[2]}"
    return path if _HUB_ID.fullmatch(path) else None


def _shorten(path: str) -> str:
    return find_hub_id(path) or Path(path).name or path


def escape(text: str) -> str:
    """`text` on one line, without meaning to Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>#|&~])", r"\\\1", _one_line(text))


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def _quote(text: str) -> str:
    text = _one_line(text)
    ticks = _longest_run(text) + 1
    pad = " " if ticks > 1 else ""
    return f"{'`' * ticks}{pad}{text}{pad}{'`' * ticks}"


def _fence(text: str) -> str:
    # A recipe may hold backticks itself, in a comment or a chat template.
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}yaml\n{text.rstrip()}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
