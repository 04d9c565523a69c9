"""The files of a model folder that make its tokenizer, and where chat templates stand."""

from __future__ import annotations

from pathlib import Path

__all__ = ["COMPANIONS", "GENERATION", "TEMPLATE_FOLDER", "TOKENIZER", "find_tokenizer_files"]

GENERATION = "generation_config.json"

TOKENIZER = (
    "tokenizer_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
#: Files besides that a model needs to be used.
COMPANIONS = (
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "normalizer.json",
)
TEMPLATE_FOLDER = "additional_chat_templates"


def find_tokenizer_files(donor: Path) -> list[str]:
    """Names of the tokenizer files that `donor` has, in a fixed order."""
    templates = sorted(path for path in (donor / TEMPLATE_FOLDER).glob("*.jinja") if path.is_file())
    return [name for name in TOKENIZER if (donor / name).is_file()] + [
        f"{TEMPLATE_FOLDER}/{path.name}" for path in templates
    ]
