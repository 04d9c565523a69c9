"""Models that are single files: tensors by name and nothing else, such as diffusion models, adapters, embeddings.

No config.json, no layers, no roles: tensors of one name are merged. What becomes of names that not all files have is
for the user to say (`KEYS`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pymerge.checkpoint import Architecture, Checkpoint, Layer, Stack
from pymerge.checkpoint.names import find_layer
from pymerge.checkpoint.quantized import find_quantization
from pymerge.checkpoint.weights import open_file
from pymerge.config.values import Case, Cases, Gradient, MergeConfig, ModelRef, Setting
from pymerge.errors import DTypeError, PymergeError, RecipeError, ShapeError
from pymerge.plan.findings import Findings
from pymerge.plan.planner import make_plan
from pymerge.plan.sources import Model, list_references
from pymerge.plan.values import MergePlan

__all__ = ["KEYS", "plan_files"]

#: What becomes of tensors that not all files have: an error; merged from the files that have them; left out.
KEYS = ("same", "union", "intersection")
#: Tensors named in a message about many.
_SHOWN = 3


def plan_files(config: MergeConfig, *, keys: str = "same", seed: int = 0) -> MergePlan:
    """Work out a merge of files from their headers alone; no weight is read.

    Args:
        config: a recipe whose models are files.
        keys: one of `KEYS`.
        seed: of random masks.

    Raises:
        RecipeError: the recipe cannot work; carries every problem that was found.
        FormatError, DTypeError, ShapeError: if files alone are at fault.
    """

    def open_all(config: MergeConfig, findings: Findings) -> Mapping[ModelRef, Model]:
        _check_form(config, findings)
        models = _open(config, findings, keys)
        _warn_of_factors(models, findings)
        return models

    if keys not in KEYS:
        raise RecipeError(f'keys cannot be "{keys}"; it is one of {", ".join(KEYS)}')
    return make_plan(config, seed=seed, opener=open_all, partial=keys == "union")


def _check_form(config: MergeConfig, findings: Findings) -> None:
    """Refuse what only makes sense in models that have layers, or names that no file has."""
    for piece in config.slices:
        findings.add(
            "slices are of layers, and single files have none", piece.where, "models: [{model: a.safetensors}]"
        )
    for module in config.modules:
        findings.add("modules are parts of models, and single files have none", module.where, "models: [...]")
    for settings in (config.parameters, *(entry.parameters for entry in config.models)):
        for name, setting in settings.items():
            if any(isinstance(case.value, Gradient) for case in _list_cases(setting)):
                what = f"{name} is a gradient over layers, and single files have none"
                findings.add(what, setting.where, "give one value, one for each model, or filter entries")
    for ref in list_references(config):
        if ref.revision or ref.lora or ref.override_architecture:
            what = f'model "{ref}": a file has no revision, adapter or architecture'
            findings.add(what, ref.where, "write a path that contains @ or + as model: {model: {path: ...}}")


def _warn_of_factors(models: Mapping[ModelRef, Model], findings: Findings) -> None:
    """Warn of adapters: what is meant is almost always the sum of their products."""
    for ref, model in models.items():
        factor = next((name for name in model.checkpoint.tensors if ".lora_A" in name or ".lora_B" in name), None)
        if factor is not None:
            findings.warn(
                f'"{ref}" holds factors of an adapter, such as {factor}: merging A and B apart does not merge '
                "their products",
                ref.where,
                "pymerge merge, with each model as path/to/base+path/to/adapter, does; into "
                "an adapter with --out-format adapter",
            )
            return


def _list_cases(setting: Setting) -> tuple[Case, ...]:
    return setting.value.cases if isinstance(setting.value, Cases) else (Case(setting.value, None),)


def _open(config: MergeConfig, findings: Findings, keys: str) -> dict[ModelRef, Model]:
    opened: dict[ModelRef, Checkpoint] = {}
    for ref in list_references(config):
        try:
            opened[ref] = _open_one(ref)
        except PymergeError as error:
            findings.take(error, ref.where)
    names = {
        name: sum(name in each.tensors for each in opened.values()) for each in opened.values() for name in each.tensors
    }
    partial = [name for name, count in names.items() if count < len(opened)]
    if partial and keys == "intersection":
        findings.warn(f"{len(partial)} tensors are not in all files and are left out: {_list_names(partial)}")
        kept = names.keys() - partial
        opened = {
            ref: replace(each, tensors={name: stored for name, stored in each.tensors.items() if name in kept})
            for ref, each in opened.items()
        }
    elif partial and keys == "same":
        _report_partial(opened, partial, findings)
    architecture = _describe(names)
    return {ref: Model(checkpoint, architecture, ()) for ref, checkpoint in opened.items()}


def _open_one(ref: ModelRef) -> Checkpoint:
    path = Path(ref.path).expanduser()
    if not path.is_file():
        what = "is a folder; pymerge merge merges those" if path.is_dir() else "there is no such file"
        raise RecipeError(f'model "{ref.path}": {what}')
    checkpoint = open_file(ref)
    if scheme := find_quantization(checkpoint.tensors, {}):
        raise DTypeError(
            f"{path}: the file is quantized ({scheme}), and quantized codes cannot be merged; dequantize it first"
        )
    # In the place of a folder, that by which two names of one model are found out.
    return replace(checkpoint, folder=path.resolve())


def _report_partial(opened: Mapping[ModelRef, Checkpoint], partial: list[str], findings: Findings) -> None:
    for ref, checkpoint in opened.items():
        lacking = [name for name in partial if name not in checkpoint.tensors]
        if lacking:
            findings.add(
                f'"{ref}" lacks {len(lacking)} of the tensors that others have: {_list_names(lacking)}',
                ref.where,
                "--keys union merges these from the files that have them, --keys intersection leaves them out",
                error=ShapeError,
            )


def _describe(names: Mapping[str, int]) -> Architecture:
    """No architecture, but that tensors with one beginning up to a number count as a layer (for `trim_scope`)."""
    layers = {name: prefix for name in names if (prefix := find_layer(name))}
    numbers = {prefix: number for number, prefix in enumerate(dict.fromkeys(layers.values()))}
    return Architecture(
        label="",
        stacks=tuple(Stack(prefix, 1, ()) for prefix in numbers),
        layers={name: Layer(numbers[prefix], 0, name) for name, prefix in layers.items()},
        embedding=None,
        head=None,
        obstacle="single files have no layers",
    )


def _list_names(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
