"""What must be so before dense models are the experts of one mixture; every mistake is reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pymerge.checkpoint import Checkpoint
from pymerge.checkpoint.json_files import read_small_file
from pymerge.checkpoint.kinds import is_gguf
from pymerge.checkpoint.names import is_buffer
from pymerge.checkpoint.tokenizer_files import find_tokenizer_files
from pymerge.config.moe import DRAWN, Expert, MoeConfig
from pymerge.config.values import ModelRef
from pymerge.errors import DTypeError, PymergeError, ShapeError
from pymerge.plan.findings import Findings
from pymerge.plan.moe.families import LOOSE, MLP, Family, name_in_layer

__all__ = ["check_base", "check_experts", "check_prompts", "check_same", "check_tokenizers", "find_width"]

#: Tensors named in a message about many.
_SHOWN = 3
#: Share of the base's tokens that may have other ids in an expert before it counts as another tokenizer.
_OTHER = 0.01


def check_same(config: MoeConfig, untrained: bool, findings: Findings) -> None:
    """Refuse experts that are all one model, but for those who mean to train them."""
    if untrained or len(config.experts) < 2 or len({expert.model for expert in config.experts}) > 1:
        return
    findings.add(
        f'all experts are "{config.experts[0].model}": the mixture does what that model does, at a higher price',
        config.experts[0].where,
        "to train it afterwards, give --i-understand-this-is-not-useful-without-training",
    )


def check_base(config: MoeConfig, base: Checkpoint, family: Family, layers: int, findings: Findings) -> None:
    """Every tensor of the base must have a place in the mixture, and every place one."""
    where = config.base_model.where
    inner = {f"mlp.{part}.weight" for part in MLP}
    places = {*LOOSE, *(name_in_layer(n, rest) for n in range(layers) for rest in (*family.kept, *inner))}
    others = [name for name, source in base.tensors.items() if name not in places and not is_buffer(name, source.shape)]
    if others:
        what = f'{family.name} has no place for {len(others)} tensors of "{base.ref}": {_list_names(others)}'
        findings.add(what, where, "the base must be a plain model of its family, without other biases or heads")
    required = (*LOOSE[:2], *(name_in_layer(n, r) for n in range(layers) for r in family.kept if r not in family.zeros))
    if lacking := [name for name in required if name not in base.tensors]:
        findings.add(f'"{base.ref}" lacks {len(lacking)} tensors: {_list_names(lacking)}', where)
    if family.splits:
        _check_heads(base, family, findings)


def _check_heads(base: Checkpoint, family: Family, findings: Findings) -> None:
    width, heads, head = (base.config.get(key) for key in ("hidden_size", "num_attention_heads", "head_dim"))
    if not isinstance(width, int) or not isinstance(heads, int) or heads < 1 or head in (None, width // heads):
        return
    findings.add(
        f'heads of "{base.ref}" are {head} wide, and those of {family.name} hidden_size / num_attention_heads = '
        f"{width // heads}",
        base.ref.where,
    )


def check_prompts(config: MoeConfig, base: Checkpoint, findings: Findings) -> None:
    """Prompts need a tokenizer."""
    if config.gate_mode in DRAWN or (not is_gguf(base.folder) and find_tokenizer_files(base.folder)):
        return
    what = f'"{base.ref}" has no tokenizer files, by which prompts become tokens'
    findings.add(what, base.ref.where, "add them, or use gate_mode: random")


def find_width(checkpoint: Checkpoint) -> int:
    """Rows of the first layer's inner matrices; 0 where they lack."""
    found = checkpoint.tensors.get(name_in_layer(0, f"mlp.{MLP[0]}.weight"))
    return found.shape[0] if found is not None and len(found.shape) == 2 else 0


def check_experts(
    config: MoeConfig,
    models: Mapping[ModelRef, Checkpoint],
    family: Family,
    layers: int,
    allow_crimes: bool,
    findings: Findings,
) -> None:
    """Experts must be of the base's type and of one shape; those that always work have a width of their own."""
    base = models[config.base_model]
    embedding = base.tensors.get(LOOSE[0])
    width = embedding.shape[-1] if embedding is not None and embedding.shape else 0
    for group in (config.experts, config.shared):
        inner = find_width(models[group[0].model]) if group else 0
        for expert in {expert.model: expert for expert in group}.values():
            checkpoint = models[expert.model]
            _check_type(expert, checkpoint, base, family, allow_crimes, findings)
            _check_shapes(expert, checkpoint, layers, {"down_proj": (width, inner)}, (inner, width), findings)


def _check_type(
    expert: Expert, checkpoint: Checkpoint, base: Checkpoint, family: Family, allow_crimes: bool, findings: Findings
) -> None:
    own, wanted = (str(each.config.get("model_type")) for each in (checkpoint, base))
    if own not in family.inputs:
        what = f'the expert "{expert.model}" is a model of type "{own}"; {family.name} is made of '
        findings.add(what + ", ".join(family.inputs), expert.model.where)
    elif own != wanted and not allow_crimes:
        what = f'the expert "{expert.model}" is a model of type "{own}", and the base of type "{wanted}"'
        findings.add(what, expert.model.where, "--allow-crimes permits it")
    for key, default in (("hidden_act", "silu"), ("num_hidden_layers", None)):
        theirs, ours = (each.config.get(key, default) for each in (checkpoint, base))
        if theirs != ours:
            findings.add(
                f'the expert "{expert.model}" has {key} = {theirs}, and the base has {ours}', expert.model.where
            )


def _check_shapes(
    expert: Expert,
    checkpoint: Checkpoint,
    layers: int,
    special: Mapping[str, tuple[int, ...]],
    usual: tuple[int, ...],
    findings: Findings,
) -> None:
    names = {name_in_layer(n, f"mlp.{part}.weight"): special.get(part, usual) for n in range(layers) for part in MLP}
    if lacking := [name for name in names if name not in checkpoint.tensors]:
        what = f'the expert "{expert.model}" lacks {len(lacking)} tensors: {_list_names(lacking)}'
        findings.add(what, expert.model.where)
        return
    found = {name: checkpoint.tensors[name] for name in names}
    wrong = [name for name, shape in names.items() if found[name].shape != shape]
    if wrong:
        first = wrong[0]
        findings.add(
            f'the expert "{expert.model}" has other shapes in {len(wrong)} tensors: "{first}" is '
            f"{list(found[first].shape)}, and {list(names[first])} is needed",
            expert.model.where,
            "experts are as wide as the base, and all of one inner width",
            error=ShapeError,
        )
    if coded := [name for name, source in found.items() if not source.dtype.mergeable]:
        what = f'the expert "{expert.model}": "{coded[0]}" is {found[coded[0]].dtype}, which is no type of weights'
        findings.add(what, expert.model.where, error=DTypeError)
    extra = [name for name in checkpoint.tensors if ".mlp." in name and name not in names and name.endswith("bias")]
    if extra:
        what = f'the expert "{expert.model}" has biases that experts cannot have: {_list_names(extra)}'
        findings.add(what, expert.model.where)


def check_tokenizers(config: MoeConfig, models: Mapping[ModelRef, Checkpoint], findings: Findings) -> None:
    """Experts that were trained on other tokens than the base's read numbers that mean something else."""
    folders = {ref: checkpoint.folder for ref, checkpoint in models.items() if not is_gguf(checkpoint.folder)}
    folders = {ref: folder for ref, folder in folders.items() if (folder / "tokenizer.json").is_file()}
    if config.base_model not in folders:
        return
    try:
        files = {ref: read_small_file(folder / "tokenizer.json") for ref, folder in folders.items()}
    except PymergeError as error:
        findings.take(error)
        return
    different = [ref for ref, content in files.items() if content != files[config.base_model]]
    if not different:
        return
    # Not before it is needed: most experts have the base's files.
    from pymerge.vocabulary.reading import read_tokenizer

    try:
        base = read_tokenizer(config.base_model, folders[config.base_model], None, ())
        others = {ref: read_tokenizer(ref, folders[ref], None, ()) for ref in different}
    except PymergeError as error:
        findings.take(error)
        return
    for ref, other in others.items():
        if base is not None and other is not None:
            _compare(ref, base.ids, other.ids, findings)


def _compare(ref: ModelRef, base: Mapping[str, int], other: Mapping[str, int], findings: Findings) -> None:
    moved = [token for token, number in base.items() if other.get(token) != number]
    if not moved:
        return
    what = (
        f'the expert "{ref}" has other ids than the base for {len(moved)} of {len(base)} tokens: {_list_names(moved)}'
    )
    if len(moved) > _OTHER * len(base):
        hint = "experts must come of one base model; --lenient takes it all the same"
        findings.add(what, ref.where, hint, tolerable=True)
    else:
        findings.warn(what, ref.where, "its tokenizer is not used")


def _list_names(names: Sequence[Any]) -> str:
    return ", ".join(f'"{name}"' for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
