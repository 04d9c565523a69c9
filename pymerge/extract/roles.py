"""What the modules of a model are, by their names, shapes and config.json: the tables that a plan rests on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymerge.checkpoint.names import EMBEDDINGS, HEADS, WRAPPERS, last_part

__all__ = ["find_role", "find_task_type", "is_tied", "name_in_peft", "split_name"]

#: Embeddings of other things than tokens, which transformers has as modules of the same kind.
_OTHER_EMBEDDINGS = (
    "wpe",
    "embed_positions",
    "position_embeddings",
    "token_type_embeddings",
    "relative_attention_bias",
)
#: Matrices that choose experts: in transformers parameters of modules of their own, which LoRA does not know.
_ROUTERS = ("gate", "router")
#: Families whose layers are Conv1D, stored as inputs x outputs -> those layers.
_CONV1D = dict.fromkeys(
    ("gpt2", "openai-gpt", "imagegpt", "decision_transformer"), ("c_attn", "c_proj", "c_fc", "q_attn")
)
#: The module that transformers puts around a model without a head, for those that were saved without one.
_WRAPPED = {"gpt2": "transformer."}
#: End of a class's name -> PEFT's name of what it is for.
_TASKS = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
}


def split_name(name: str) -> tuple[str, str | None]:
    """A tensor's module and whether it is its weight or bias; None for a parameter by another name."""
    module, _, end = name.rpartition(".")
    return (module, end) if module and end in ("weight", "bias") else (name, None)


def find_role(module: str, end: str | None, shape: tuple[int, ...], config: Mapping[str, Any]) -> str:
    """What a tensor is: linear, conv1d, embedding, positions, head, bias, router, norm, tensor or parameter."""
    last = last_part(module)
    if end is None:
        return "parameter"
    if end == "bias":
        return "bias"
    if len(shape) != 2:
        return "norm" if len(shape) == 1 else "tensor"
    for role, table in (
        ("conv1d", _CONV1D.get(str(config.get("model_type")), ())),
        ("embedding", EMBEDDINGS),
        ("positions", _OTHER_EMBEDDINGS),
        ("head", HEADS),
        ("router", _ROUTERS),
    ):
        # `output` is a head only outside of layers; in them it is a matrix like any other.
        if last in table and not (role in ("head", "embedding") and any(part.isdigit() for part in module.split("."))):
            return role
    return "linear"


def is_tied(config: Mapping[str, Any]) -> bool:
    """Whether a model without an output head of its own has one, and only one: the token embedding."""
    classes = config.get("architectures") or [""]
    generates = str(classes[0]).endswith(("ForCausalLM", "LMHeadModel"))
    return generates and config.get("tie_word_embeddings", True) is not False and not config.get("is_encoder_decoder")


def find_task_type(config: Mapping[str, Any]) -> str:
    """PEFT's name of what a model is for."""
    if config.get("is_encoder_decoder"):
        return "SEQ_2_SEQ_LM"
    classes = config.get("architectures") or [""]
    return next((task for end, task in _TASKS.items() if str(classes[0]).endswith(end)), "CAUSAL_LM")


def name_in_peft(module: str, embedding: str | None, config: Mapping[str, Any]) -> str:
    """A module's name in the model that transformers makes, which may have a wrapper that was not saved.

    Args:
        embedding: the token embedding's name, by which saved wrappers are told.
    """
    bare = embedding is not None and embedding.count(".") == 1
    if not bare or last_part(module) in HEADS or module.startswith(WRAPPERS):
        return module
    return _WRAPPED.get(str(config.get("model_type")), "model.") + module
