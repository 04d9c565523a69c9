"""Models whose files contradict each other: layers that are missing, a config.json that is of other weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pymerge.checkpoint import Architecture, Checkpoint
from pymerge.checkpoint.architecture import find_layer_counts
from pymerge.checkpoint.names import HEADS
from pymerge.checkpoint.tying import are_tied
from pymerge.errors import FormatError
from pymerge.plan.findings import Findings

__all__ = ["check_config", "check_model"]

#: Ends of the names of classes that have an output head; others may lack one whatever config.json says.
_GENERATING = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
#: Keys of config.json for the width of the token embedding and of what stands between layers.
_WIDTHS = ("hidden_size", "n_embd", "d_model")
#: What is in the name of a section of config.json that describes the language model.
_TEXT = ("text", "language", "llm", "decoder")
#: What is in the keys that count layers behind the last one, which predict further tokens.
_PREDICTING = ("nextn", "mtp")
_ALIKE = "the model itself is inconsistent; the output is like it"
_SHOWN = 3
#: Digits of a number that are shown.
_DIGITS = 30


def check_model(checkpoint: Checkpoint, architecture: Architecture, findings: Findings) -> None:
    """Report layers that are missing between others, and warn of a head that should be there."""
    where, label = checkpoint.ref.where, str(checkpoint.ref)
    for gap in architecture.gaps:
        listed = ", ".join(map(str, gap.missing[:_SHOWN])) + (", ..." if gap.count > _SHOWN else "")
        findings.add(
            f'"{label}" lacks {"layer" if gap.count == 1 else "layers"} {listed} of {gap.prefix}, and has later ones',
            where,
            "download it again; layers that were left out on purpose are numbered anew, 0, 1, 2, ...",
            tolerable=True,
            error=FormatError,
        )
    if _lacks_head(checkpoint, architecture):
        findings.warn(
            f'config.json of "{label}" says tie_word_embeddings = false, and it has no output head ({HEADS[0]})',
            where,
            "its embedding stands in where other models have one; if it was saved without its own, download it again",
        )


def check_config(checkpoint: Checkpoint, architecture: Architecture, findings: Findings) -> None:
    """Warn of numbers in the donor's config.json that its weights contradict; the output gets both."""
    if not checkpoint.files:
        return  # What an earlier stage makes: the model that it has config.json from was looked at.
    where, label = checkpoint.ref.where, str(checkpoint.ref)
    for said, found in (*_find_depths(checkpoint.config, architecture), *_find_widths(checkpoint, architecture)):
        findings.warn(f'config.json of "{label}" says {said}, its weights have {found}', where, _ALIKE)


def _lacks_head(checkpoint: Checkpoint, architecture: Architecture) -> bool:
    names = checkpoint.config.get("architectures")
    generates = isinstance(names, list) and any(str(name).endswith(_GENERATING) for name in names)
    embedding = architecture.embedding
    if not generates or embedding is None or architecture.head or are_tied(checkpoint.config):
        return False
    # A head that no table names has a row for each token, too.
    rows = checkpoint.tensors[embedding].shape[0]
    return not any(
        len(tensor.shape) == 2 and tensor.shape[0] == rows and name != embedding and name not in architecture.layers
        for name, tensor in checkpoint.tensors.items()
    )


def _find_depths(config: Mapping[str, Any], architecture: Architecture) -> Iterator[tuple[str, str]]:
    counts = [(path, value) for path, value in find_layer_counts(config) if _is_of_text(path)]
    if not architecture.stacks or architecture.stacks[0].keys or not counts:
        return
    largest = architecture.stacks[0]
    depths = {stack.count for stack in architecture.stacks} | {largest.count - _count_predicting(config)}
    if all(value not in depths for _, value in counts):
        path, value = counts[0]
        yield f"{'.'.join(path)} = {_show(value)}", f"{largest.count} layers ({largest.prefix})"


def _find_widths(checkpoint: Checkpoint, architecture: Architecture) -> Iterator[tuple[str, str]]:
    """The embedding and the vectors of a layer both tell the width; models exist where one of them is another."""
    if not architecture.stacks or architecture.embedding is None:
        return
    path = next((key for key in architecture.stacks[0].keys if _is_of_text(key)), ("",))
    section: Any = checkpoint.config
    for key in path[:-1]:
        section = section[key]
    vectors = {
        checkpoint.tensors[name].shape[0]
        for name, layer in architecture.layers.items()
        if layer.stack == layer.index == 0 and len(checkpoint.tensors[name].shape) == 1
    }
    width = checkpoint.tensors[architecture.embedding].shape[1]
    said = next((key for key in _WIDTHS if isinstance(section.get(key), int)), None)
    if said is not None and vectors and section[said] not in {width, *vectors}:
        name = ".".join((*path[:-1], said))
        yield f"{name} = {_show(section[said])}", f'{width} columns in "{architecture.embedding}"'


def _show(number: int) -> str:
    digits = str(number)
    return digits if len(digits) <= _DIGITS else f"{digits[:_DIGITS]}..."


def _is_of_text(path: tuple[str, ...]) -> bool:
    return len(path) == 1 or any(word in path[0] for word in _TEXT)


def _count_predicting(config: Mapping[str, Any]) -> int:
    sections = (config, *(value for value in config.values() if isinstance(value, Mapping)))
    numbers = (
        value
        for section in sections
        for key, value in section.items()
        if isinstance(value, int) and any(word in key for word in _PREDICTING)
    )
    return next(numbers, 0)
