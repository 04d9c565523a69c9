"""config.json of the output: layer count and lists, data type, tied head, checked vocabulary."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pymerge.checkpoint import restack_config
from pymerge.config.values import ModelRef
from pymerge.errors import ShapeError
from pymerge.plan.assembly import Part
from pymerge.plan.consistency import check_config
from pymerge.plan.findings import Findings
from pymerge.plan.modules import Section
from pymerge.plan.sources import Group, Model
from pymerge.plan.values import TensorTask

if TYPE_CHECKING:
    from pymerge.vocabulary import Vocabulary

__all__ = ["make_config"]

_DTYPE_KEYS = ("torch_dtype", "dtype")


def make_config(
    donor: Model,
    models: Mapping[ModelRef, Model],
    sections: Sequence[Section],
    parts: Sequence[Part],
    tasks: Sequence[TensorTask],
    vocabulary: Vocabulary | None,
    findings: Findings,
) -> dict[str, Any]:
    """Return config.json for the output: the donor's, with what the merge changes."""
    config = copy.deepcopy(dict(donor.checkpoint.config))
    for section in (section for section in sections if section.sliced):
        origins = [
            (models[entry.model].checkpoint.config, layer)
            for group in section.groups
            for entry in (group.sources[group.base or 0],)
            for layer in range(*(entry.layer_range or (0, 0)))
        ]
        config, remarks = restack_config(config, section.donor.architecture.stacks[0], origins)
        for remark in remarks:
            findings.warn(f"config.json cannot describe the new order of layers: {remark}", section.groups[0].where)
    groups = [group for section in sections for group in section.groups]
    _set_dtype(config, tasks)
    _set_tied(config, donor, models, groups, parts)
    if vocabulary is not None:
        _set_vocabulary(config, vocabulary)
    _check_vocabulary(config, donor, tasks, findings)
    check_config(donor.checkpoint, donor.architecture, findings)
    return config


def _set_vocabulary(config: dict[str, Any], vocabulary: Vocabulary) -> None:
    """Rows and ids of special tokens, in every section that says something of them."""
    changes = {"vocab_size": vocabulary.rows, **vocabulary.config_ids}
    for section in (config, *config.values()):
        for key, value in changes.items() if isinstance(section, dict) else ():
            if key in section:
                section[key] = value


def _set_dtype(config: dict[str, Any], tasks: Sequence[TensorTask]) -> None:
    """Name the type of most bytes under the key that the donor uses, in every section that has one."""
    sizes: Counter[str] = Counter()
    for task in tasks:
        if task.dtype.mergeable:
            sizes[task.dtype.name] += task.nbytes
    if not sizes:
        return
    name = sizes.most_common(1)[0][0]
    if not any(key in config for key in _DTYPE_KEYS):
        config["torch_dtype"] = name
    _replace_dtype(config, name)


def _replace_dtype(section: dict[str, Any], name: str) -> None:
    for key, value in section.items():
        if key in _DTYPE_KEYS:
            section[key] = name
        elif isinstance(value, dict) and key.endswith("_config"):
            _replace_dtype(value, name)


def _set_tied(
    config: dict[str, Any],
    donor: Model,
    models: Mapping[ModelRef, Model],
    groups: Sequence[Group],
    parts: Sequence[Part],
) -> None:
    """Untie the output if it has a head of its own that is not everywhere the embedding."""
    heads = {model.architecture.head for model in models.values()} - {None}
    part = next((part for part in parts if part.name in heads), None)
    if part is None:
        return
    members = [models[entry.model] for entry in groups[part.group].sources]
    untied = part.borrowed or any(m.checkpoint.config.get("tie_word_embeddings") is False for m in members)
    if not untied:
        return
    for section in (config, *config.values()):
        if section is config or (isinstance(section, dict) and "tie_word_embeddings" in section):
            section["tie_word_embeddings"] = False


def _check_vocabulary(config: Mapping[str, Any], donor: Model, tasks: Sequence[TensorTask], findings: Findings) -> None:
    """Check the rows of embedding and head against config.json, which a loader would refuse much later."""
    shapes = {task.name: task.shape for task in tasks}
    found = {
        shapes[name][0]: name for name in (donor.architecture.head, donor.architecture.embedding) if name in shapes
    }
    for rows, name in found.items():
        _check_rows(config, donor, str(name), rows, findings)


def _check_rows(config: Mapping[str, Any], donor: Model, name: str, rows: int, findings: Findings) -> None:
    section: Any = config
    for stack in donor.architecture.stacks[:1]:
        for key in stack.keys[0][:-1] if stack.keys else ():
            section = section.get(key, {})
    said = section.get("vocab_size", config.get("vocab_size"))
    if not isinstance(said, int) or said == rows:
        return
    message = f'the merged "{name}" has {rows} rows, config.json of "{donor.label}" says vocab_size = {said}'
    own = donor.checkpoint.tensors.get(name)
    if own is not None and own.shape[0] == rows:
        findings.warn(message, donor.checkpoint.ref.where, "the model itself is inconsistent; the output is like it")
    else:
        findings.add(
            message,
            donor.checkpoint.ref.where,
            "name a model with the same vocabulary as base_model, or align them by token: tokenizer_source: union",
            error=ShapeError,
        )
