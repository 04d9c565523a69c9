"""Tables of names that models use for the same things; the only place that lists them.

A name that no table knows still merges; the tables decide roles (embedding, head, buffer) and, for
layer assembly, whether a tensor outside the layers stands before or after them.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = [
    "EMBEDDINGS",
    "HEADS",
    "LAYER_COUNTS",
    "MODULES",
    "REST_OF_MODEL",
    "WRAPPERS",
    "Side",
    "find_layer",
    "find_side",
    "is_buffer",
    "last_part",
]

Side: TypeAlias = Literal["before", "after"]

#: Keys of config.json that count layers.
LAYER_COUNTS = (
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "n_blocks", "num_blocks", "depth",
    "encoder_layers", "decoder_layers", "num_encoder_layers", "num_decoder_layers",
)  # fmt: skip

#: Token embeddings ([vocabulary, width]), which a tied output head shares.
EMBEDDINGS = (
    "embed_tokens", "wte", "word_embeddings", "tok_embeddings", "embed_in", "embeddings", "embedding", "shared", "emb",
)  # fmt: skip

#: Modules whose bias is one number for each token (BERT).
VOCABULARY_BIASES = ("predictions", "decoder")

#: Output heads over the vocabulary.
HEADS = ("lm_head", "embed_out", "output", "output_layer", "head")

#: A module name before all others that some savings of a model have and others lack (GPT-2).
WRAPPERS = ("transformer.", "model.", "bert.", "roberta.")

#: Modules of models with several parts, as recipes call them -> what their tensors' names begin with.
MODULES = {
    "text_decoder": ("language_model.", "model.language_model.", "text_model.", "model.text_model."),
    "vision_tower": ("vision_tower.", "model.vision_tower.", "vision_model.", "model.vision_model.", "visual.",
                     "model.visual."),
    "multi_modal_projector": ("multi_modal_projector.", "model.multi_modal_projector.", "visual.merger.",
                              "model.visual.merger.", "visual.deepstack_merger_list.",
                              "model.visual.deepstack_merger_list."),
    "encoder": ("encoder.", "model.encoder."),
    "decoder": ("decoder.", "model.decoder."),
    "shared": ("shared.", "model.shared."),
}  # fmt: skip
#: The module of all that is in none of these.
REST_OF_MODEL = "default"

_BEFORE = {
    *EMBEDDINGS, "wpe", "embed_positions", "position_embeddings", "token_type_embeddings", "embd", "embed_norm",
    "word_embeddings_layernorm", "emb_norm", "ln_pre", "rotary_emb", "rotary_pos_emb", "project_in", "position_ids",
    "relative_pe",
}  # fmt: skip
_AFTER = {
    *HEADS, "norm", "final_norm", "final_layernorm", "final_layer_norm", "ln_f", "ln_out", "norm_f", "ln_final",
    "embedding_norm", "score", "classifier", "cls", "pooler", "qa_outputs", "project_out", "out_norm", "v_head",
    "vocab_transform", "vocab_projector", "pred_layer", "lm_loss",
}  # fmt: skip
#: For names that no table holds: the first piece of text found in the name decides.
_HINTS: tuple[tuple[str, Side], ...] = (
    ("emb", "before"), ("position", "before"), ("head", "after"), ("final", "after"), ("norm", "after"),
    ("out", "after"), ("pool", "after"), ("class", "after"), ("logit", "after"), ("predictions", "after"),
    ("reward", "after"),
)  # fmt: skip

#: What a model computes by itself when it is built: (end of the name, number of dimensions or None).
#: Older savings have them, newer ones do not.
_BUFFERS = (
    ("rotary_emb.inv_freq", 1), (".masked_bias", 0), (".attn.bias", 4), (".attention.bias", 4),
    ("position_ids", None), ("rotary_pos_emb.inv_freq", 1),
)  # fmt: skip


def last_part(name: str) -> str:
    """Name of the module that owns a tensor: "lm_head" for "model.lm_head.weight"."""
    parts = name.split(".")
    return parts[-2] if len(parts) > 1 and parts[-1] in {"weight", "bias"} else parts[-1]


def find_layer(name: str) -> str:
    """Everything up to the first number in a name, where nothing else tells its layer; empty where there is none."""
    parts = name.split(".")
    index = next((at for at, part in enumerate(parts) if part.isdigit()), None)
    return "" if index is None else ".".join(parts[: index + 1])


def find_side(name: str) -> Side:
    """Tell on which side of the layers a tensor outside them stands."""
    for part in reversed(name.split(".")):
        if part in _BEFORE:
            return "before"
        if part in _AFTER:
            return "after"
    lowered = name.lower()
    return next((side for text, side in _HINTS if text in lowered), "before")


def is_buffer(name: str, shape: tuple[int, ...]) -> bool:
    """Tell if a tensor is one that models rebuild by themselves, so that lacking it loses nothing."""
    return any(name.endswith(end) and dims in (None, len(shape)) for end, dims in _BUFFERS)
