"""What stands beside an adapter's weights: adapter_config.json for PEFT, README.md, a tokenizer that is another one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pymerge.checkpoint.kinds import is_gguf
from pymerge.checkpoint.links import check_link
from pymerge.checkpoint.tokenizer_files import find_tokenizer_files
from pymerge.config.values import ModelRef
from pymerge.errors import printable
from pymerge.extract.values import Extracted, ExtractionPlan, Options, Whole
from pymerge.output.adapter import make_adapter_config
from pymerge.output.card import escape, find_hub_id
from pymerge.output.files import copy_file

__all__ = ["copy_tokenizer", "make_card", "make_config"]


def make_config(plan: ExtractionPlan, matrices: Sequence[Extracted], whole: Sequence[Whole]) -> dict[str, Any]:
    """adapter_config.json of factors, and of tensors that are stored as they are."""
    return make_adapter_config(
        base=plan.base.ref,
        task_type=plan.task_type,
        ranks={each.module: each.rank for each in matrices},
        saved=list(dict.fromkeys(name for part in whole for name in part.modules)),
        biases=any(not part.modules for part in whole),
        turned=plan.turned,
    )


def make_card(plan: ExtractionPlan, title: str, *, rank: int, error: float) -> str:
    """README.md; local paths are named by their last part alone, for cards get published."""
    base = find_hub_id(plan.base.ref.path)
    front = {
        **({"base_model": base, "base_model_relation": "adapter"} if base else {}),
        "library_name": "peft",
        "tags": ["pymerge", "lora"],
    }
    command = printable(" ".join(shlex.quote(word) for word in _make_command(plan)))
    return "\n\n".join(
        (
            f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
            f"# {escape(title)}",
            f"A LoRA adapter of rank up to {rank}: what {escape(_shorten(plan.tuned.ref))} adds to "
            f"{escape(_shorten(plan.base.ref))}, extracted with pymerge. Of the difference of all matrices, "
            f"{error:.1%} (Frobenius norm) are not in it.",
            f"    {command}\n",
        )
    )


def copy_tokenizer(plan: ExtractionPlan, folder: Path) -> tuple[str, ...]:
    """Copy the tokenizer's files of the fine-tuned model if they are not the base's; returns their names."""
    donor, base = plan.tuned.folder, plan.base.folder
    if is_gguf(donor):
        return ()
    names = find_tokenizer_files(donor)
    if all((base / name).is_file() and (base / name).read_bytes() == (donor / name).read_bytes() for name in names):
        return ()
    for name in names:
        check_link(donor / Path(name).parts[0])
        check_link(donor / name)
        (folder / name).parent.mkdir(exist_ok=True)
        copy_file(donor / name, folder / name)
    return tuple(names)


def _shorten(ref: ModelRef) -> str:
    parts = [find_hub_id(path) or Path(path).name or path for path in (ref.path, ref.lora) if path]
    return "+".join(parts)


#: Fields of `Options` whose option has another name, or none.
_OPTIONS: Mapping[str, str] = {
    "save_modules": "--save-module",
    "include": "--include-regex",
    "exclude": "--exclude-regex",
    "distribute_scale": "--no-distribute-scale",
}


def _make_command(plan: ExtractionPlan) -> Iterator[str]:
    yield from ("pymerge", "extract-lora", "--model", _shorten(plan.tuned.ref), "--base-model", _shorten(plan.base.ref))
    for name in Options.__slots__:
        value, usual = getattr(plan.options, name), getattr(Options(), name)
        option = _OPTIONS.get(name, "--" + name.replace("_", "-"))
        if value == usual:
            continue
        if isinstance(value, bool):
            yield option
            continue
        for each in value if isinstance(value, tuple) else (value,):
            yield from (option, str(each))
