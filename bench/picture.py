"""The picture of a run: each merge's wall time over the floor's, with spread and target.

    python -m bench.picture RESULTS.jsonl OUT.svg [--title TEXT]

Bars are medians, whiskers best to worst; the line at 1.0 is the floor, as fast as copying. The same
records give the same bytes. Of a merge that was recorded more than once, the last counts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import records
from .drawing import COLORS, STYLE, require_matplotlib, save

__all__ = ["draw", "require_matplotlib"]

#: Inches.
_WIDTH, _BAR, _AROUND = 8.0, 0.3, 1.5


def draw(found: Sequence[dict[str, Any]], path: Path, title: str | None = None) -> None:
    """Draw the records of whole merges into `path` (.svg or .png).

    Raises:
        ValueError: there is no record of a merge.
    """
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    kept = {(r["method"], r["command"]): r for r in found if r.get("bench") == "merge"}
    if not kept:
        raise ValueError("no record of a merge to draw")
    methods = list(dict.fromkeys(method for method, _ in kept))
    commands = list(dict.fromkeys(command for _, command in kept))
    with matplotlib.rc_context(STYLE):
        height = _AROUND + _BAR * len(methods) * max(1.5, len(commands) + 0.5)
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        axes = figure.subplots()
        _draw_bars(axes, kept, methods, commands)
        _draw_marks(axes, kept, methods)
        axes.set_yticks(range(len(methods)), methods)
        axes.set_ylim(len(methods) - 0.4, -0.6)  # the first on top
        axes.set_xlabel("wall time / floor (read the inputs once, write the output once); less is better")
        figure.suptitle(title or _describe(next(iter(kept.values()))), fontsize="medium")
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize="small")
        save(figure, path)


def _draw_bars(axes: Any, kept: dict[tuple[str, str], dict[str, Any]], methods: list[str], commands: list[str]) -> None:
    thickness = 0.8 / len(commands)
    # Labels begin to the right of everything in their row: whisker, floor, target.
    clear = {key: max(record["ratio"]["worst"], 1.0, record.get("target") or 0.0) for key, record in kept.items()}
    for place, command in enumerate(commands):
        rows = [(at, kept[method, command]["ratio"]) for at, method in enumerate(methods) if (method, command) in kept]
        middles = [at + (place - (len(commands) - 1) / 2) * thickness for at, _ in rows]
        medians = [ratio["median"] for _, ratio in rows]
        whiskers = (
            [ratio["median"] - ratio["best"] for _, ratio in rows],
            [ratio["worst"] - ratio["median"] for _, ratio in rows],
        )
        axes.barh(
            middles,
            medians,
            thickness * 0.9,
            xerr=whiskers,
            color=COLORS[place % len(COLORS)],
            error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#333333"},
            label=command,
        )
        for middle, (at, ratio) in zip(middles, rows, strict=True):
            axes.annotate(
                f"{ratio['median']:.2f}",
                (clear[methods[at], command], middle),
                xytext=(7, 0),
                textcoords="offset points",
                va="center",
                fontsize="small",
            )
    axes.set_xlim(0, max(clear.values()) * 1.12)


def _draw_marks(axes: Any, kept: dict[tuple[str, str], dict[str, Any]], methods: list[str]) -> None:
    axes.axvline(1.0, color="#333333", linewidth=1, linestyle="--", label="floor")
    targets = {method: record.get("target") for (method, _), record in kept.items()}
    known = [(targets[method], at) for at, method in enumerate(methods) if targets[method] is not None]
    if known:
        values, rows = zip(*known, strict=True)
        axes.vlines(
            values,
            [row - 0.45 for row in rows],
            [row + 0.45 for row in rows],
            color="#000000",
            linewidth=2,
            label="target",
        )


def _describe(record: dict[str, Any]) -> str:
    machine = record.get("machine", {})
    facts = (
        f"pymerge {machine.get('pymerge', '')}",
        f"{record.get('size', '')} {record.get('dtype', '')}",
        "cold" if record.get("cold") else "warm",
        f"{record.get('threads', '?')} threads",
        f"{machine.get('processor', '')} ({machine.get('isa', '')})",
        f"{record.get('rounds', '?')} rounds",
    )
    return ", ".join(facts)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="JSON lines of bench.merge")
    parser.add_argument("picture", type=Path, help=".svg or .png")
    parser.add_argument("--title")
    options = parser.parse_args(arguments)
    try:
        draw(list(records.read(options.results)), options.picture, options.title)
    except (OSError, ValueError) as error:
        raise SystemExit(f"{options.results}: {error}") from error


if __name__ == "__main__":
    main()
