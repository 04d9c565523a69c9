"""gate_mode cheap_embed: directions of prompts are sums of their tokens' embeddings, the same for all layers."""

from __future__ import annotations

import numpy as np

from pymerge.checkpoint import Source
from pymerge.config.moe import Expert
from pymerge.gates.prompts import Prompts
from pymerge.gates.reading import read_rows
from pymerge.gates.vectors import normalize, point
from pymerge.kernels.common.convert import Array

__all__ = ["embed"]


def embed(expert: Expert, prompts: Prompts, embedding: Source) -> Array:
    """[1, width] float64; only rows of tokens that occur are read."""

    def add_up(texts: tuple[str, ...]) -> Array:
        ids = [number for text in texts for number in prompts.encode(text, embedding.shape[0])]
        known = sorted(set(ids))
        rows = dict(zip(known, read_rows(embedding, known), strict=True))
        total = np.zeros(embedding.shape[1])
        for number in ids:
            total += rows[number]
        return normalize(total)

    return point(add_up(expert.positive), add_up(expert.negative) if expert.negative else None)[None]
