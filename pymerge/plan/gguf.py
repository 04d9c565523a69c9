"""A plan's output as a GGUF file has it: other names, types, and order of rows; the numbers are the merge's."""

from __future__ import annotations

from array import array
from dataclasses import replace
from functools import lru_cache

from pymerge.checkpoint.gguf_families import FAMILIES, Family, name_in_file
from pymerge.checkpoint.sources import Packed, RowChoice, Rows
from pymerge.checkpoint.values import Source
from pymerge.config.values import Input, MergeConfig, ModelRef
from pymerge.dtypes import BY_CODE
from pymerge.errors import Problem, RecipeError
from pymerge.plan.costs import find_twin
from pymerge.plan.values import MergePlan, Staged, TensorTask

__all__ = ["ALIGNMENT", "ONE_FILE", "convert_plan", "find_kind", "find_written_family", "merge_before"]

_FLOATS = {"F32": "F32", "F16": "F16", "BF16": "BF16"}
_BLOCK = 32
#: Data of a tensor begin at multiples of this.
ALIGNMENT = 32
#: Name of the stage that is the whole recipe.
ONE_FILE = "what the recipe makes"
#: model_type of config.json -> architecture in files.
_ARCHITECTURES = {family.model_type: name for name, family in FAMILIES.items()} | {"mistral": "llama"}
#: Tensors of old folders that are worked out anew by everyone.
_LEFT_OUT = (".rotary_emb.inv_freq",)
_OTHERWISE = "write safetensors, and convert them with llama.cpp's convert_hf_to_gguf.py"


def find_written_family(plan: MergePlan) -> tuple[str, Family]:
    """(architecture in the file, family) of a plan's output.

    Raises:
        RecipeError: such models are not written.
    """
    kind = plan.model_config.get("model_type")
    name = _ARCHITECTURES.get(kind) if isinstance(kind, str) else None
    if name is None:
        raise RecipeError(
            f"models of the type {str(kind)[:100]!r} are not written as GGUF, which is known of "
            f"{', '.join(_ARCHITECTURES)}; {_OTHERWISE}"
        )
    return name, FAMILIES[name]


def find_kind(plan: MergePlan) -> str:
    """The type that a plan's matrices have anyway, as GGUF files call it: of most bytes."""
    sizes: dict[str, int] = {}
    for task in plan.tasks:
        sizes[task.dtype.code] = sizes.get(task.dtype.code, 0) + task.nbytes
    return _FLOATS.get(max(sizes, key=lambda code: sizes[code]), "F32")


def merge_before(config: MergeConfig) -> MergeConfig:
    """A recipe that passes through what `config` makes: for plans that look at many tensors before they merge one."""
    stage = replace(config, stage=ONE_FILE, stages=())
    return replace(
        config, merge_method="passthrough", models=(Input(ModelRef(ONE_FILE), {}),), slices=(), modules=(),
        base_model=None, parameters={}, include=(), exclude=(), tokenizer=None, chat_template=None,
        stages=(*config.stages, stage), stage=None, warnings=(),
    )  # fmt: skip


def convert_plan(plan: MergePlan, kind: str) -> MergePlan:
    """The plan whose tasks are the tensors of a GGUF file.

    What is only rounded to its type is merged into it at once; rows that change places, blocks, and tensors that end
    between two places where one may begin are packed on their way into the file (kernels/pack).

    Args:
        plan: not one that asks for groups of tensors, or for copies that agree (see `merge_before`).
        kind: one of `GGUF_KINDS`, of matrices; vectors are float32, as everywhere in such files.

    Raises:
        RecipeError: the model is of a family that is not written, or has tensors that it does not have there.
    """
    name, family = find_written_family(plan)
    heads = plan.model_config.get("num_attention_heads"), plan.model_config.get("num_key_value_heads")
    tasks = []
    wide: list[str] = []
    for task in plan.tasks:
        if task.name.endswith(_LEFT_OUT):
            continue
        found = name_in_file(family, task.name)
        if found is None:
            raise RecipeError(f'tensor "{task.name}" is none that GGUF files of {name} are known to have; {_OTHERWISE}')
        written, part = found
        form = _find_form(kind, task, family, part)
        if form != kind and len(task.shape) > 1:
            wide.append(written)
        moved = None
        if part in family.permuted:
            count = (heads[0] if part == "attn_q" else heads[1]) or heads[0]
            moved = _join_pairs(task, count)
        tasks.append(_convert(plan, task, written, form, moved))
    warnings = plan.warnings
    if wide:
        what = f"{len(wide)} tensors, such as {wide[0]}, have rows of no multiple of {_BLOCK} elements and are F16"
        warnings = (*warnings, Problem(what))
    return replace(plan, tasks=tuple(sorted(tasks, key=lambda each: each.name)), warnings=warnings)


def _find_form(kind: str, task: TensorTask, family: Family, part: str) -> str:
    if len(task.shape) == 1:
        return "F32_PLUS_ONE" if family.norms_of_one and part.endswith("norm") else "F32"
    return "F16" if kind == "Q8_0" and task.shape[-1] % _BLOCK else kind


def _convert(plan: MergePlan, task: TensorTask, name: str, form: str, moved: RowChoice | None) -> TensorTask:
    dtype = BY_CODE.get(form)
    if dtype is not None and moved is None and task.count * dtype.itemsize % ALIGNMENT == 0:
        return replace(task, name=name, dtype=dtype)
    source: Source = _make_source(plan, task)
    if moved is not None:
        source = Rows(task.name, (source,), moved, task.shape)
    packed = Packed(name, form, source, task.shape, ALIGNMENT)
    return TensorTask(name, packed.shape, packed.dtype, (packed,), (task.labels[0],), None, task.compute)


def _make_source(plan: MergePlan, task: TensorTask) -> Source:
    """What a task makes, not yet rounded."""
    twin = find_twin(plan, replace(task, dtype=task.sources[0].dtype)) if task.inputs else None
    if twin is not None:
        return twin
    if task.inputs is None:
        return task.sources[0]
    return Staged(task.name, task.shape, replace(task, dtype=task.compute), plan.method, task.dtype)


def _join_pairs(task: TensorTask, heads: object) -> RowChoice:
    rows = task.shape[0]
    if type(heads) is not int or heads < 1 or rows % (2 * heads):
        raise RecipeError(f'tensor "{task.name}" has {rows} rows, and config.json says {heads} heads')
    return _order_pairs(rows, rows // heads)


@lru_cache(maxsize=8)
def _order_pairs(rows: int, head: int) -> RowChoice:
    """Rows of each head: pairs that are rotated together become neighbors; in the folder they are half a head apart."""
    half = head // 2
    within = [row // 2 + row % 2 * half for row in range(head)]
    order = array("q", (start + row for start in range(0, rows, head) for row in within))
    return RowChoice(array("q", range(rows + 1)), array("q", bytes(8 * rows)), order)
