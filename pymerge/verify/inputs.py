"""The inputs of a finished merge, found again: its recipe, its models where they are now, whether they are the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pymerge.checkpoint.remote import Place
from pymerge.config import load_recipe, suggest_name
from pymerge.config.moe import MOE, MoeConfig
from pymerge.config.moe_document import load_moe
from pymerge.config.stages import iterate_references
from pymerge.config.values import Input, MergeConfig, ModelRef, Slice
from pymerge.errors import PymergeError, RecipeError
from pymerge.output.fingerprint import fingerprint
from pymerge.plan import make_plan
from pymerge.plan.moe import plan_moe
from pymerge.plan.values import RECIPES, MergePlan
from pymerge.verify.manifest import InputFile, Manifest, parse_files
from pymerge.verify.values import Check, Finding

__all__ = ["find_inputs"]


def find_inputs(folder: Path, manifest: Manifest, models: Mapping[str, str]) -> tuple[MergePlan | None, Check]:
    """Plan the merge again.

    Args:
        models: where models are now, by the names that the recipe has for them.

    Returns:
        The plan, None if a model is gone or is not what was merged; and the check "inputs".

    Raises:
        RecipeError: `models` names what is not in the recipe, or one folder twice.
    """
    name = RECIPES[manifest.method == MOE]
    if not (folder / name).exists():
        return None, Check.skip("inputs", f"there is no {name}")
    try:
        config = (load_moe if manifest.method == MOE else load_recipe)(folder / name, lenient=manifest.lenient)
    except RecipeError as error:
        return None, Check("inputs", "damaged", tuple(Finding(str(problem)) for problem in error.problems))
    names = _list_names(config.recipe if isinstance(config, MoeConfig) else config)
    paths = _locate(names, models)
    try:
        plan = _plan_again(config, paths, manifest)
    except PymergeError as error:
        found = error.problems if isinstance(error, RecipeError) else (error,)
        unchecked = tuple(Finding(_advise(str(problem))) for problem in found)
        return None, Check("inputs", "the merge cannot be planned again", unchecked=unchecked)
    changed, touched = [], []
    was = {path: name for name, path in paths.items()}
    for model in plan.models:
        # A stage with an adapter has the stage's name for a path.
        name = str(replace(model.ref, path=was.get(model.ref.path, model.ref.path)))
        then = manifest.inputs.get(name, {})
        whole = any(file.whole for file in then.values())
        now = parse_files(fingerprint(model, whole=whole)["files"])
        differences = list(_compare(then, now))
        changed += [Finding(f'is not the model "{name}" that was merged: {text}', file) for file, text in differences]
        if not differences and then != now:
            touched.append(name)
    summary = f"{len(plan.models)} models, headers and sizes as they were"
    if touched:
        summary += f" (written or copied since: {', '.join(touched)})"
    check = Check("inputs", "not those that were merged" if changed else summary, unchecked=tuple(changed))
    return (None if changed else plan), check


def _plan_again(config: MergeConfig | MoeConfig, paths: Mapping[str, str], manifest: Manifest) -> MergePlan:
    settings: dict[str, Any] = {
        "lenient": manifest.lenient,
        "seed": manifest.seed,
        "allow_crimes": manifest.allow_crimes,
        "locate": _find_cached,
    }
    if isinstance(config, MoeConfig):
        moved = config.map_references(lambda ref: replace(ref, path=paths.get(ref.path, ref.path)))
        return plan_moe(moved, untrained=True, **settings)
    return make_plan(_relocate(config, paths), **settings)


def _find_cached(repo: str, revision: str | None, adapter: bool) -> Place:
    """As a merge does, but that a check fetches nothing: a hub's models come from its cache."""
    from pymerge.hub import Hub

    return Hub(offline=True).locate(repo, revision, adapter)


def _advise(problem: str) -> str:
    return (
        problem + "; --model NAME=FOLDER says where a model is now" if "there is no such folder" in problem else problem
    )


def _list_names(config: MergeConfig) -> list[str]:
    """Paths of all models in all documents; stages are none."""
    documents = (*config.stages, config)
    stages = {document.stage for document in config.stages}
    paths = (ref.path for document in documents for ref in iterate_references(document))
    return list(dict.fromkeys(path for path in paths if path not in stages))


def _locate(names: list[str], models: Mapping[str, str]) -> dict[str, str]:
    for name in models:
        if name not in names:
            raise RecipeError(f'the recipe has no model "{name}"; {suggest_name(name, names, "models")}')
    paths = {name: models.get(name, name) for name in names}
    if len(set(paths.values())) < len(paths):
        # In a recipe, models are told from each other by their names.
        raise RecipeError("two models of the recipe cannot be at one place; name it in two ways, such as by a link")
    return paths


def _relocate(config: MergeConfig, paths: Mapping[str, str]) -> MergeConfig:
    def move(ref: ModelRef) -> ModelRef:
        return replace(ref, path=paths.get(ref.path, ref.path))

    def move_all(inputs: tuple[Input, ...]) -> tuple[Input, ...]:
        return tuple(replace(entry, model=move(entry.model)) for entry in inputs)

    def move_slice(piece: Slice) -> Slice:
        return replace(piece, sources=move_all(piece.sources), base_model=piece.base_model and move(piece.base_model))

    return replace(
        config,
        models=move_all(config.models),
        slices=tuple(map(move_slice, config.slices)),
        modules=tuple(
            replace(module, models=move_all(module.models), slices=tuple(map(move_slice, module.slices)))
            for module in config.modules
        ),
        base_model=config.base_model and move(config.base_model),
        stages=tuple(_relocate(stage, paths) for stage in config.stages),
        tokenizer=config.tokenizer and config.tokenizer.map_references(move),
    )


def _compare(then: Mapping[str, InputFile], now: Mapping[str, InputFile]) -> Iterator[tuple[str, str]]:
    """(file, what is different) of a model's files; times do not count."""
    for name, file in now.items():
        old = then.get(name)
        if old is None:
            yield name, "there was no such file"
        elif old.size != file.size:
            yield name, f"it has {file.size:,} bytes and had {old.size:,}"
        elif old.header != file.header:
            yield name, "its header is another"
        elif old.whole != file.whole:
            yield name, "its SHA-256 is another"
    for name in then.keys() - now.keys():
        yield name, "it is gone"
