"""Recipes: YAML to frozen values, with the place of every value kept for messages."""

from pymerge.config.recipes import load_recipe
from pymerge.config.resolve import resolve
from pymerge.config.suggestions import suggest_name
from pymerge.config.values import (
    Case,
    Cases,
    Gradient,
    Input,
    MergeConfig,
    ModelRef,
    ModelToken,
    Scalar,
    Setting,
    Slice,
    Template,
    TokenizerSetting,
    TokenRule,
)

__all__ = [
    "Case",
    "Cases",
    "Gradient",
    "Input",
    "MergeConfig",
    "ModelRef",
    "ModelToken",
    "Scalar",
    "Setting",
    "Slice",
    "Template",
    "TokenRule",
    "TokenizerSetting",
    "load_recipe",
    "resolve",
    "suggest_name",
]
