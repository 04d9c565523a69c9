"""An output folder that is a LoRA adapter as PEFT has them: made ready before a merge, completed after it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pymerge.checkpoint.adapters import CONFIG, WEIGHTS
from pymerge.checkpoint.json_files import read_json
from pymerge.config.values import ModelRef
from pymerge.errors import RecipeError, ResourceError
from pymerge.execute.values import ExecutionReport
from pymerge.output.card import CARD, find_hub_id, make_adapter_card
from pymerge.output.files import digest_json, remove_file, sync_folder, write_json, write_text
from pymerge.output.fingerprint import digest_file
from pymerge.output.manifest import MANIFEST, make_manifest
from pymerge.output.older import remove_older
from pymerge.output.report import MergeReport
from pymerge.output.single_file import FilePreparation, finish_file, journal_name, prepare_file
from pymerge.output.target import refuse_folders
from pymerge.plan.adapter import AdapterParts
from pymerge.plan.values import RECIPES, MergePlan
from pymerge.schedule.values import Schedule

__all__ = ["finish_adapter", "make_adapter_config", "prepare_adapter"]


def prepare_adapter(
    schedule: Schedule, folder: Path, *, overwrite: bool = False, restart: bool = False, reflink: bool = True
) -> FilePreparation:
    """Check, make and lock a folder; from here until the end it does not look like an adapter.

    Raises:
        RecipeError: the folder is not empty, is no folder, is an input's, or holds what is left of another merge.
        ResourceError: it cannot be made, is in use, or the disk cannot hold the output.
    """
    check_adapter_folder(schedule.plan, folder, overwrite=overwrite)
    made = prepare_file(schedule, folder / WEIGHTS[0], overwrite=True, restart=restart, reflink=reflink)
    try:
        for name in (CONFIG, *WEIGHTS[1:]):
            remove_file(folder / name)
    except ResourceError as error:
        made.journal.__exit__(type(error), error, None)
        raise
    sync_folder(folder)
    return made


def check_adapter_folder(plan: MergePlan, folder: Path, *, overwrite: bool) -> None:
    """Refuse an output folder that `prepare_adapter` refuses; nothing is made."""
    _refuse_inputs(plan, folder)
    if not os.path.lexists(folder):
        return
    if not os.path.isdir(folder):
        raise RecipeError(f"output {folder} is a file, not a folder; name another one")
    try:
        present = sorted(each.name for each in folder.iterdir())
    except OSError as error:
        raise ResourceError(f"output folder {folder} cannot be read: {error.strerror or error}") from error
    # With a journal in it, it is taken up again, or refused by what that says.
    if present and not overwrite and journal_name(WEIGHTS[0]) not in present:
        raise RecipeError(
            f"output folder {folder} is not empty ({len(present)} entries, such as {present[0]}); "
            "name a new folder, or give --overwrite to replace the adapter in it"
        )
    refuse_folders(folder, (CONFIG, *WEIGHTS, MANIFEST, CARD, *RECIPES))


def finish_adapter(
    schedule: Schedule,
    preparation: FilePreparation,
    execution: ExecutionReport,
    parts: AdapterParts,
    *,
    settings: Mapping[str, Any],
    write_model_card: bool = True,
) -> MergeReport:
    """Complete a folder whose weight file is in place; adapter_config.json comes last.

    Args:
        settings: what the user chose, for the manifest.

    Raises:
        ResourceError: a file cannot be written.
    """
    plan, folder = schedule.plan, preparation.path.parent
    written = []
    if plan.config.text:
        write_text(folder / plan.recipe_file, plan.config.text)
        written.append(plan.recipe_file)
    if write_model_card:
        write_text(folder / CARD, make_adapter_card(plan, folder.resolve().name))
        written.append(CARD)
    config = make_adapter_config(
        base=plan.models[0].ref,
        task_type=_find_task_type(plan),
        ranks=parts.ranks,
        saved=parts.saved,
        biases=parts.biases,
        turned=parts.turned,
    )
    remarks = remove_older(folder, {*written, *WEIGHTS})
    report = MergeReport.collect(schedule, folder, execution, (), remarks)
    files = {name: digest_file(folder / name) for name in written} | {CONFIG: digest_json(config)}
    write_json(folder / MANIFEST, make_manifest(schedule, preparation.identity, report, settings, files))
    write_json(folder / CONFIG, config)
    finish_file(schedule, preparation, execution)
    return report


def make_adapter_config(
    *,
    base: ModelRef,
    task_type: str | None,
    ranks: Mapping[str, int],
    saved: Sequence[str],
    biases: bool,
    turned: bool,
) -> dict[str, Any]:
    """adapter_config.json of factors, and of tensors that are stored as they are.

    Modules are named in full: by their last parts others would be matched, of which there are no factors. alpha is
    the rank, module by module, so that every scale is 1.

    Args:
        ranks: by module; one at least.
        saved: modules that are stored whole.
        biases: single biases are stored too.
        turned: layers are stored as inputs x outputs.
    """
    rank = max(ranks.values())
    others = {module: each for module, each in ranks.items() if each != rank}
    return {
        "peft_type": "LORA",
        "task_type": task_type,
        "base_model_name_or_path": find_hub_id(base.path) or base.path,
        "revision": base.revision,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": list(ranks),
        "modules_to_save": list(saved) or None,
        "lora_dropout": 0.0,
        # So PEFT saves them again; it loads them whatever stands here.
        "bias": "all" if biases else "none",
        "fan_in_fan_out": turned,
        "use_rslora": False,
    }


def _refuse_inputs(plan: MergePlan, folder: Path) -> None:
    target = os.path.realpath(folder)
    for model in plan.models:
        if target in {os.path.realpath(each) for each in (model.folder, *(path.parent for path, *_ in model.files))}:
            raise RecipeError(f"output folder {folder} is of the input {str(model.ref)!r}; name another one")


def _find_task_type(plan: MergePlan) -> str | None:
    """What the first adapter that says it was trained for."""
    for model in plan.models:
        if model.ref.lora:
            found = read_json(model.files[-1][0].parent / CONFIG).get("task_type")
            if isinstance(found, str):
                return found
    return None
