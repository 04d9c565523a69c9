"""Llama-shaped checkpoints of any size, made fast and the same every time.

    python -m bench.checkpoints OUT --layers 22 --hidden 2048 ... [--models 3] [--dtype bf16]

Values are plausible (normal, fine-tunes near their base): selection and rounding behave as on real
weights. One block of random numbers is reused with a shift per tensor, so that making 1.1 billion
parameters takes seconds.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

DTYPES = {"bf16": ("BF16", ml_dtypes.bfloat16), "f16": ("F16", np.float16), "f32": ("F32", np.float32)}
_NAMES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Shape:
    """A Llama's dimensions; the default is TinyLlama's, 1.1 billion parameters."""

    layers: int = 22
    hidden: int = 2048
    intermediate: int = 5632
    heads: int = 32
    kv_heads: int = 4
    vocab: int = 32000

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor."""
        kv = self.hidden // self.heads * self.kv_heads
        layer = {
            "input_layernorm": (self.hidden,),
            "mlp.down_proj": (self.hidden, self.intermediate),
            "mlp.gate_proj": (self.intermediate, self.hidden),
            "mlp.up_proj": (self.intermediate, self.hidden),
            "post_attention_layernorm": (self.hidden,),
            "self_attn.k_proj": (kv, self.hidden),
            "self_attn.o_proj": (self.hidden, self.hidden),
            "self_attn.q_proj": (self.hidden, self.hidden),
            "self_attn.v_proj": (kv, self.hidden),
        }
        out: dict[str, tuple[int, ...]] = {"lm_head.weight": (self.vocab, self.hidden)}
        out["model.embed_tokens.weight"] = (self.vocab, self.hidden)
        for index in range(self.layers):
            out |= {f"model.layers.{index}.{name}.weight": shape for name, shape in layer.items()}
        out["model.norm.weight"] = (self.hidden,)
        return dict(sorted(out.items()))

    def config(self, dtype: str) -> dict[str, Any]:
        """config.json."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocab,
            "tie_word_embeddings": False,
            "torch_dtype": _NAMES[dtype],
        }


def write_models(folder: Path, shape: Shape, count: int, dtype: str = "bf16") -> list[Path]:
    """Write model-0 (the base) and its fine-tunes below `folder`; models that are there are kept."""
    paths = [folder / f"model-{index}" for index in range(count)]
    for index, path in enumerate(paths):
        if not (path / "config.json").exists():
            _write_model(path, shape, index, dtype)
    return paths


def _write_model(path: Path, shape: Shape, index: int, dtype: str) -> None:
    path.mkdir(parents=True, exist_ok=True)
    code, kind = DTYPES[dtype]
    # A prime length, so that successive tensors see different parts of the block.
    base = (np.random.default_rng(0).standard_normal(_BLOCK - 3, dtype=np.float32) * 0.02).astype(kind)
    block = base
    if index:
        delta = np.random.default_rng(index).standard_normal(_BLOCK - 3, dtype=np.float32) * 0.002
        block = (base.astype(np.float32) + delta).astype(kind)
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, dims in shape.tensors().items():
        size = int(np.prod(dims)) * block.itemsize
        entries[name] = {"dtype": code, "shape": list(dims), "data_offsets": [at, at + size]}
        at += size
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    with (path / "model.safetensors").open("wb") as out:
        out.write(len(header).to_bytes(8, "little") + header)
        left = at // block.itemsize
        while left:
            part = block[: min(left, block.size)]
            out.write(part.view(np.uint8).data)
            left -= part.size
    (path / "config.json").write_text(json.dumps(shape.config(dtype), indent=2))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="bf16")
    for name, value in vars(Shape()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    given = vars(parser.parse_args())
    out, models, dtype = given.pop("out"), given.pop("models"), given.pop("dtype")
    for path in write_models(out, Shape(**given), models, dtype):
        print(path)


if __name__ == "__main__":
    main()
