"""What a GGUF file says before its tensors: of the model, its tokenizer, and how it came to be."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import pymerge
from pymerge.checkpoint.gguf_header import GgufHeader, read_gguf_header
from pymerge.checkpoint.kinds import is_gguf
from pymerge.checkpoint.sources import Packed
from pymerge.config.values import ModelRef
from pymerge.errors import RecipeError
from pymerge.output.gguf.pairs import encode_pairs
from pymerge.output.gguf.settings import describe_settings
from pymerge.output.gguf.tokens import describe_tokenizer
from pymerge.plan.gguf import find_written_family
from pymerge.plan.values import MergePlan
from pymerge.schedule.gguf_layout import GgufHead
from pymerge.vocabulary.reading import read_tokenizer

__all__ = ["make_head"]

#: Type of matrices -> general.file_type, as llama.cpp numbers them.
_FILE_TYPES = {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32}
_CONSTANTS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
_EMBEDDING = "token_embd.weight"
#: Of a file whose metadata are taken over, what is no longer so.
_GONE = ("split.", "quantize.", "general.file_type", "general.quantization_version", "general.size_label")


def make_head(plan: MergePlan, name: str, kind: str, like: Path | None = None) -> GgufHead:
    """Return what stands before the tensors.

    Args:
        plan: of `convert_plan`.
        name: of the model, for those who look into the file.
        kind: of its matrices.
        like: a GGUF file whose settings and tokenizer are taken over; without it those of the base, if that is one,
            else they are made of config.json and the tokenizer's files.

    Raises:
        RecipeError: there is no tokenizer, or one that such files do not know; or `like` is of another architecture or
            vocabulary.
        FormatError: a file that is read is damaged.
    """
    architecture, family = find_written_family(plan)
    count = _find_rows(plan)
    donor = plan.models[plan.donor].folder
    like = like or (donor if is_gguf(donor) else None)
    pairs = encode_pairs(
        {
            "general.architecture": architecture,
            "general.type": "model",
            "general.name": name,
            "general.file_type": _FILE_TYPES[kind],
            "general.quantization_version": 2 if kind == "Q8_0" else None,
            "pymerge.version": pymerge.__version__,
            "pymerge.recipe": plan.config.text or None,
        }
    )
    made = plan.vocabulary is not None
    if like is None:
        values, constants = describe_settings(plan.model_config, architecture, family)
        pairs |= encode_pairs(values)
    else:
        header = read_gguf_header(like)
        _check_like(header, like, architecture, None if made else count)
        kept = _take_pairs(like, header, without="tokenizer." if made else None)
        pairs = {**kept, **pairs, **encode_pairs({f"{architecture}.block_count": plan.layers})}
        constants = {
            tensor.name: _read_floats(like, tensor.offset, tensor.nbytes)
            for tensor in header.tensors
            if tensor.name in _CONSTANTS
        }
    if like is None or made:
        pairs |= _write_tokenizer(plan, count)
    return GgufHead(pairs, constants)


def _find_rows(plan: MergePlan) -> int:
    """Rows of the embedding."""
    task = next(task for task in plan.tasks if task.name == _EMBEDDING)
    source = task.sources[0]
    return source.elements[0] if isinstance(source, Packed) else task.shape[0]


def _write_tokenizer(plan: MergePlan, rows: int) -> dict[str, bytes]:
    donor = plan.models[plan.donor]
    with tempfile.TemporaryDirectory(prefix="pymerge-") as made:
        folder = donor.folder
        if plan.vocabulary is not None:
            folder = Path(made)
            for name, content in plan.vocabulary.files.items():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(content)
        tokenizer = read_tokenizer(ModelRef(donor.ref.path), folder, rows, ()) if folder.is_dir() else None
        if tokenizer is None:
            raise RecipeError(
                f'"{donor.ref}" has no tokenizer, without which a GGUF file is of no use; copy its files there, or '
                "name a GGUF file with the same vocabulary with --gguf-like"
            )
        return encode_pairs(describe_tokenizer(tokenizer, rows, plan.model_config))


def _check_like(header: GgufHeader, like: Path, architecture: str, rows: int | None) -> None:
    found = header.metadata.get("general.architecture")
    if found != architecture:
        raise RecipeError(
            f"{like}: is of the architecture {str(found)[:100]!r}, and the merge of {architecture!r}; name a file "
            "of that one"
        )
    theirs = next((tensor.shape[0] for tensor in header.tensors if tensor.name == _EMBEDDING), None)
    if rows is not None and theirs != rows:
        raise RecipeError(
            f"{like}: its vocabulary has {theirs} entries, and the merge has {rows}; name a file with the same"
        )


def _take_pairs(path: Path, header: GgufHeader, without: str | None) -> dict[str, bytes]:
    """Metadata as they are in the file, but for what depends on how its tensors were stored."""
    gone = (*_GONE, without) if without else _GONE
    kept: dict[str, bytes] = {}
    with path.open("rb") as file:
        for key, (begin, end) in header.spans.items():
            if not key.startswith(gone) and key != "general.alignment":
                file.seek(begin)
                kept[key] = file.read(end - begin)
    return kept


def _read_floats(path: Path, offset: int, nbytes: int) -> tuple[float, ...]:
    with path.open("rb") as file:
        file.seek(offset)
        return struct.unpack(f"<{nbytes // 4}f", file.read(nbytes))
