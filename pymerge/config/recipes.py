"""`load_recipe`: a file, YAML text or mapping -> MergeConfig, with every problem found in one go."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from pymerge.config.document import read_document
from pymerge.config.nodes import compose_trees
from pymerge.config.numbers import plain_scalar
from pymerge.config.stages import link_stages
from pymerge.config.values import MergeConfig
from pymerge.errors import Problem, RecipeError

__all__ = ["load_recipe", "read_source"]

#: Recipes are a few kilobytes; more is a mistake (a weight file given as recipe).
MAX_BYTES = 8 << 20
#: Mappings and lists in each other, of a mapping from Python: more is one that holds itself.
_DEEPEST = 100


def load_recipe(source: str | os.PathLike[str] | Mapping[str, Any], *, lenient: bool = False) -> MergeConfig:
    """Read and check a recipe; no model is looked at.

    Args:
        source: a path, YAML text (anything with a line break), or a mapping of the same shape.
        lenient: keep problems that the established tool would swallow as `config.warnings`.

    Raises:
        RecipeError: with every problem of the recipe, in file order.
    """
    text, name = read_source(source)
    problems: list[Problem] = []
    read = [read_document(tree, text, name, problems) for tree in compose_trees(text, name, problems)]
    config = link_stages([document for document in read if document is not None], problems)
    problems.sort(key=lambda problem: (problem.where.line, problem.where.column) if problem.where else (0, 0))
    fatal = [problem for problem in problems if not (lenient and problem.tolerable)]
    if fatal or config is None:
        raise RecipeError(fatal)
    return replace(config, warnings=tuple(problems))


def read_source(source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[str, str]:
    """The YAML of a recipe, and its name for messages; raises RecipeError if it is no text of bounded size."""
    if isinstance(source, Mapping):
        # As text, a mapping has lines to point to and can be kept beside the result.
        return yaml.safe_dump(_plain(source), sort_keys=False), "<recipe>"
    if isinstance(source, str) and "\n" in source:
        return _check_text(source), "<recipe>"
    return _read_file(Path(source)), os.fspath(source)


def _read_file(path: Path) -> str:
    try:
        # What is no regular file, such as a pipe, has no size to ask for.
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise RecipeError(f"{path}: is too large for a recipe (a YAML file of at most {MAX_BYTES} bytes)")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not a text file in UTF-8 (byte {error.start})") from None
    except ValueError:
        raise RecipeError(f"{str(path)!r} is no path of a recipe") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot read the recipe: {error.strerror}") from None


def _check_text(text: str) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise RecipeError(f"the recipe holds half of a character (character {error.start})") from None
    if size > MAX_BYTES:
        raise RecipeError(f"{size} bytes are too many for a recipe (at most {MAX_BYTES})")
    return text


def _plain(value: Any, depth: int = 0) -> Any:
    """Copy a Python value into what YAML can hold (also drops shared references)."""
    if depth > _DEEPEST:
        raise RecipeError(f"a recipe cannot hold mappings and lists in each other more than {_DEEPEST} deep")
    if isinstance(value, Mapping):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in value]
    scalar = plain_scalar(value)
    if value is None or scalar is not None:
        return scalar
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise RecipeError(f"a recipe cannot hold a value of type {type(value).__name__}: {value!r}")
