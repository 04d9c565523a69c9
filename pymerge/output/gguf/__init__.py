"""GGUF files as outputs: what they say before their tensors."""

from __future__ import annotations

from pymerge.output.gguf.head import make_head

__all__ = ["make_head"]
