"""Documents of small mixtures, their models and tokenizer; what tests of them share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WORDS = ("<unk>", "<s>", "</s>", "code", "python", "sum", "love", "poem", "rose", "a", "write", "with")
PROMPTS: list[dict[str, list[str]]] = [
    {"positive_prompts": ["write code", "a python sum"], "negative_prompts": ["poem"]},
    {"positive_prompts": ["write a poem", "love"]},
]


def write_tokenizer(folder: Path) -> None:
    import tokenizers

    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["<s>", "</s>"])
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"})
    )


def document(experts: Sequence[Any] = ("x", "y"), shared: int = 0, **keys: Any) -> dict[str, Any]:
    named = [each if isinstance(each, dict) else {"source_model": each} for each in experts]
    made = {"base_model": "b", "gate_mode": "random", "experts": named, **keys}
    return {**made, "shared_experts": [{"source_model": "b", "residual_scale": 0}]} if shared else made


def prompted(mode: str, **keys: Any) -> dict[str, Any]:
    return document([{"source_model": n, **p} for n, p in zip("xy", PROMPTS, strict=True)], gate_mode=mode, **keys)


def read(folder: str) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return dict(load_file(Path(folder) / "model.safetensors"))
