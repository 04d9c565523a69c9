"""Rows of routers from prompts: what the base model makes of texts, before any expert is copied."""

from pymerge.gates.find import check_available, find_gates

__all__ = ["check_available", "find_gates"]
