"""What the pictures share: style, colors, and files that are the same for the same records."""

from __future__ import annotations

import io
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["COLORS", "STYLE", "require_matplotlib", "save"]

#: Colors that people with color-blindness tell apart (Okabe and Ito); the first is pymerge's.
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00")
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "pymerge",  # else ids are random
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def require_matplotlib() -> None:
    """Stop with advice where matplotlib is missing."""
    try:
        import_module("matplotlib")
    except ImportError as error:
        raise SystemExit("pictures need matplotlib: pip install 'pymerge[bench]'") from error


def save(figure: Any, path: Path) -> None:
    """Write a figure as .svg or .png."""
    if path.suffix != ".svg":
        figure.savefig(path, dpi=120)
        return
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    # Lines of matplotlib's SVG end in spaces, which a repository may not want.
    path.write_text("".join(line.rstrip() + "\n" for line in text.getvalue().splitlines()), encoding="utf-8")
