"""Advice for a name that nobody knows: the nearest known one, or the list of them."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["suggest_name"]


def suggest_name(name: str, known: Iterable[str], what: str) -> str:
    """Return 'did you mean "x"?', or 'known <what>: a, b, c' if nothing is near."""
    names = sorted(known)
    near = get_close_matches(name.lower().replace("-", "_"), names, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{near[0]}"?'
    return f"known {what}: {', '.join(names)}" if names else f"there are no {what}"
