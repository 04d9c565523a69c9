"""Llama-shaped checkpoints of any size, made fast and the same every time.

    python -m bench.checkpoints OUT --size 1.1B [--layers N] [--vocab N] [--models 3] [--dtype bf16] [--shards N]

Values are plausible (normal, fine-tunes near their base): selection and rounding behave as on real
weights. One block of random numbers is reused with a shift per tensor, so that making 1.1 billion
parameters takes seconds. Stand-ins have true headers and holes for data: enough for planning.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
import numpy.typing as npt

__all__ = ["BLOCK", "DTYPES", "NAMES", "SIZES", "Shape", "add_shape_options", "make_block", "shape_of", "write_models"]

#: Short name: (safetensors' code, numpy's type).
DTYPES: dict[str, tuple[str, Any]] = {
    "bf16": ("BF16", ml_dtypes.bfloat16),
    "f16": ("F16", np.float16),
    "f32": ("F32", np.float32),
}
#: Short name: the one in recipes and in config.json.
NAMES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}
# A prime-like length, so that successive tensors see different parts of the block.
BLOCK = (1 << 22) - 3

Fill = Callable[[BinaryIO, int], None]


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama's dimensions."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
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
            "torch_dtype": NAMES[dtype],
        }


#: Parameters, roughly: dimensions. 1.1B is TinyLlama; of 70B, take a slice with fewer layers.
SIZES = {
    "tiny": Shape(layers=2, hidden=64, intermediate=160, heads=4, kv_heads=2, vocab=256),
    "0.3B": Shape(layers=22, hidden=1024, intermediate=2816, heads=16, kv_heads=4),
    "1.1B": Shape(layers=22, hidden=2048, intermediate=5632, heads=32, kv_heads=4),
    "3B": Shape(layers=28, hidden=3072, intermediate=8192, heads=24, kv_heads=8),
    "8B": Shape(layers=32, hidden=4096, intermediate=14336, heads=32, kv_heads=8, vocab=128256),
    "70B": Shape(layers=80, hidden=8192, intermediate=28672, heads=64, kv_heads=8),
}


def shape_of(size: str, layers: int | None = None, vocab: int | None = None) -> Shape:
    """A shape of `SIZES`, with another number of layers or words if given."""
    given = {"layers": layers, "vocab": vocab}
    return replace(SIZES[size], **{name: value for name, value in given.items() if value is not None})


def make_block(index: int, kind: Any, size: int = BLOCK) -> npt.NDArray[Any]:
    """`size` values of model `index`, [size] of `kind`: 0 is the base, others are near it."""
    base = (np.random.default_rng(0).standard_normal(size, dtype=np.float32) * 0.02).astype(kind)
    if not index:
        return base
    delta = np.random.default_rng(index).standard_normal(size, dtype=np.float32) * 0.002
    tuned: npt.NDArray[Any] = (base.astype(np.float32) + delta).astype(kind)
    return tuned


def write_models(
    folder: Path, shape: Shape, count: int, dtype: str = "bf16", *, shards: int = 1, stand_in: bool = False
) -> list[Path]:
    """Write model-0 (the base) and its fine-tunes below `folder`; models that are there are kept.

    Args:
        shards: files to a model, of about the same number of tensors.
        stand_in: true headers over holes; the values read as zero.
    """
    paths = [folder / f"model-{index}" for index in range(count)]
    for index, path in enumerate(paths):
        if not (path / "config.json").exists():
            _write_model(path, shape, dtype, shards, _hole if stand_in else _filler(index, dtype))
    return paths


def _hole(out: BinaryIO, size: int) -> None:
    out.truncate(out.tell() + size)


def _filler(index: int, dtype: str) -> Fill:
    block = make_block(index, DTYPES[dtype][1]).view(np.uint8)

    def fill(out: BinaryIO, size: int) -> None:
        while size:
            part = block[: min(size, block.size)]
            out.write(part.data)
            size -= part.size

    return fill


def _split(tensors: dict[str, tuple[int, ...]], shards: int) -> Iterator[tuple[str, dict[str, tuple[int, ...]]]]:
    names = list(tensors)
    for at in range(shards):
        part = names[at * len(names) // shards : (at + 1) * len(names) // shards]
        file = "model.safetensors" if shards == 1 else f"model-{at + 1:05}-of-{shards:05}.safetensors"
        yield file, {name: tensors[name] for name in part}


def _write_model(path: Path, shape: Shape, dtype: str, shards: int, fill: Fill) -> None:
    path.mkdir(parents=True, exist_ok=True)
    code, kind = DTYPES[dtype]
    places: dict[str, str] = {}
    for file, tensors in _split(shape.tensors(), shards):
        entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        at = 0
        for name, dims in tensors.items():
            size = int(np.prod(dims)) * np.dtype(kind).itemsize
            entries[name] = {"dtype": code, "shape": list(dims), "data_offsets": [at, at + size]}
            at += size
            places[name] = file
        header = json.dumps(entries).encode()
        header += b" " * (-len(header) % 8)
        with (path / file).open("wb") as out:
            out.write(len(header).to_bytes(8, "little") + header)
            fill(out, at)
            out.flush()
            os.fsync(out.fileno())  # or the first things that are timed share the disk with this
    if shards > 1:
        (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    # Last: a folder that has it is whole.
    (path / "config.json").write_text(json.dumps(shape.config(dtype), indent=2))


def add_shape_options(parser: argparse.ArgumentParser) -> None:
    """--size, --layers, --vocab, --dtype."""
    parser.add_argument("--size", choices=SIZES, default="1.1B")
    parser.add_argument("--layers", type=int, help="instead of the size's")
    parser.add_argument("--vocab", type=int, help="instead of the size's, such as 128256")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="bf16")


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    add_shape_options(parser)
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--stand-in", action="store_true", help="headers over holes")
    given = parser.parse_args(arguments)
    shape = shape_of(given.size, given.layers, given.vocab)
    for path in write_models(given.out, shape, given.models, given.dtype, shards=given.shards, stand_in=given.stand_in):
        print(path)


if __name__ == "__main__":
    main()
