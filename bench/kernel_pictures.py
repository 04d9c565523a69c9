"""Pictures of kernels: shares of copying, a roofline, bandwidth over size.

    python -m bench.kernel_pictures HISTORY.jsonl FOLDER

`pymerge bench kernels --pictures FOLDER` draws what it has just timed. The same records give the same bytes; of
what was recorded more than once, the last counts. A picture is of one dtype, number of models and instruction set.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from . import records
from .drawing import COLORS, STYLE, require_matplotlib, save

__all__ = ["draw_all", "require_matplotlib"]

Record = dict[str, Any]

#: What a picture is of; the rest is in it.
_ONE = ("dtype", "models", "isa")
_MARKERS = "osD^vP*X<>"
_GRAY = "#555555"


def draw_all(found: Sequence[Record], folder: Path) -> list[Path]:
    """Draw everything that records of kernels say, as SVG; the folder is made.

    Returns:
        The files: `shares-*.svg` and `roofline-*.svg` of the largest size, `sizes-*.svg` where there are several.

    Raises:
        ValueError: there is no record of a kernel that has what a picture shows.
    """
    require_matplotlib()
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, group in _group(found):
        largest = max(record["elements"] for record in group)
        whole = [record for record in group if record["elements"] == largest]
        drawn += [_draw(_draw_shares, whole, folder / f"shares-{name}.svg")]
        drawn += [_draw(_draw_roofline, whole, folder / f"roofline-{name}.svg")]
        if len({record["elements"] for record in group}) > 1:
            drawn += [_draw(_draw_sizes, group, folder / f"sizes-{name}.svg")]
    if not drawn:
        raise ValueError("no record of a kernel to draw")
    return drawn


def _group(found: Sequence[Record]) -> Iterator[tuple[str, list[Record]]]:
    """(name, records) of each picture; kernels that take one model are in the pictures of every number."""
    keys = ("kernel", "variant", *_ONE, "elements")
    known = {tuple(r[key] for key in keys): r for r in found if r.get("bench") == "kernels" and "operations" in r}
    kept = list(known.values())
    several = {(r["kernel"], r["variant"]) for r in kept if r["models"] > 1}
    for dtype, models, isa in dict.fromkeys(tuple(record[key] for key in _ONE) for record in kept):
        if models == 1 and several:
            continue
        group = [
            record
            for record in kept
            if (record["dtype"], record["isa"]) == (dtype, isa)
            and (record["models"] == models or (record["kernel"], record["variant"]) not in several)
        ]
        yield f"{dtype}-{models}-{isa}", group


def _draw(draw: Callable[[Any, Any, Sequence[Record]], None], group: Sequence[Record], path: Path) -> Path:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(layout="constrained")
        draw(figure, figure.subplots(), group)
        figure.suptitle(_describe(max(group, key=lambda record: int(record["models"]))), fontsize="small")
        save(figure, path)
    return path


def _name(record: Record) -> str:
    return f"{record['kernel']}, {record['variant'].replace('_', ' ')}"


def _yardstick(record: Record) -> str:
    return "reading" if record["yardstick"] == "read" else "copying"


def _describe(record: Record) -> str:
    machine, device = record.get("machine", {}), record.get("device")
    where = device["name"] if device else f"{machine.get('processor', '')}, 1 thread"
    size = f"{record['dtype']}, {record['models']} model{'s' * (record['models'] > 1)}, {record['isa']}"
    return f"pymerge {machine.get('pymerge', '')}, {where}\n{size}"


def _draw_shares(figure: Any, axes: Any, group: Sequence[Record]) -> None:
    """Bars of the share of the yardstick's rate; targets as marks."""
    figure.set_size_inches(8, 1.8 + 0.3 * len(group))
    shares = [record["share"] for record in group]
    colors = [COLORS[_yardstick(record) == "reading"] for record in group]
    axes.barh(range(len(group)), shares, 0.7, color=colors)
    axes.axvline(1.0, color=_GRAY, linewidth=1, linestyle="--")
    for row, record in enumerate(group):
        target = record["target"]
        if target:
            axes.vlines(target, row - 0.45, row + 0.45, color="black", linewidth=2)
        # To the right of a mark that the number would cover.
        near = [mark for mark in (target, 1.0) if mark and record["share"] <= mark < record["share"] + 0.1]
        beside = max([record["share"], *near])
        axes.annotate(
            f"{record['share']:.2f}", (beside, row), (5, 0), textcoords="offset points", va="center", fontsize="small"
        )
    axes.set_yticks(range(len(group)), [_name(record) for record in group])
    axes.set_ylim(len(group) - 0.4, -0.6)
    axes.set_xlim(0, max(1.0, *shares) * 1.12)
    axes.set_xlabel("share of the machine's rate, measured in the same run; more is better")
    handles, labels = [], []
    for color, word in dict(zip(colors, map(_yardstick, group), strict=True)).items():
        handles.append(axes.barh([0], [0], color=color))
        labels.append(f"of {word}")
    if any(record["target"] for record in group):
        handles.append(axes.plot([], [], color="black", linewidth=2)[0])
        labels.append("target")
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize="small")


def _draw_roofline(figure: Any, axes: Any, group: Sequence[Record]) -> None:
    """Operations a second over operations a byte, under what memory and arithmetic give."""
    figure.set_size_inches(8, 6)
    each_byte = [record["operations"] / record["bytes_per_element"] for record in group]
    peak = group[-1]["peak_rate"] / 1e9
    rates = {
        word: [r["yardstick_rate"] / 1e9 for r in group if _yardstick(r) == word] for word in map(_yardstick, group)
    }
    least, most = min(each_byte) / 2, 2 * max(*each_byte, *(peak / max(found) for found in rates.values()))
    for word, found in rates.items():
        rate, line = max(found), "--" if word == "reading" else "-"
        label = f"{word}, {rate:,.0f} GB/s"
        axes.plot([least, peak / rate], [least * rate, peak], color=_GRAY, linewidth=1, linestyle=line, label=label)
    ridge = min(peak / max(found) for found in rates.values())
    axes.plot([ridge, most], [peak, peak], color="black", linewidth=1, label=f"matrix products, {peak:,.0f} billion/s")
    for place, (x, record) in enumerate(zip(each_byte, group, strict=True)):
        color, marker = COLORS[place % len(COLORS)], _MARKERS[place // 2 % len(_MARKERS)]
        y = x * record["rate"] / 1e9
        axes.plot([x], [y], linestyle="", marker=marker, markersize=7, color=color, label=_name(record))
    for axis in (axes.xaxis, axes.yaxis):
        _scale_by_log(axis)
    axes.set_xlim(least, most)
    axes.set_xlabel("operations of the formula for each byte moved")
    axes.set_ylabel("billions of operations per second")
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")


def _scale_by_log(axis: Any) -> None:
    """A logarithmic axis with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _draw_sizes(figure: Any, axes: Any, group: Sequence[Record]) -> None:
    """GB/s over what the inputs hold together, a line for each kernel."""
    figure.set_size_inches(9, 5.5)
    names = list(dict.fromkeys(_name(record) for record in group))
    for place, name in enumerate(names):
        rows = _by_size(group, name)
        sizes = [_input_bytes(record) for record in rows]
        color, marker = COLORS[place % len(COLORS)], _MARKERS[place // 2 % len(_MARKERS)]
        line = "-" if place < len(COLORS) else ":" if place < 2 * len(COLORS) else "-."
        rates = [record["rate"] / 1e9 for record in rows]
        axes.plot(sizes, rates, color=color, marker=marker, markersize=4, linewidth=1.2, linestyle=line, label=name)
    cache = group[-1].get("machine", {}).get("cache")
    sizes = [_input_bytes(record) for record in group]
    if cache and "device" not in group[-1] and min(sizes) < cache < max(sizes):
        axes.axvline(cache, color=_GRAY, linewidth=1, linestyle="--", label="the last cache")
    axes.set_xscale("log", base=2)
    axes.set_xticks(*_ticks(min(sizes), max(sizes)))
    axes.set_ylim(0, None)
    axes.set_xlabel("bytes of the inputs together")
    axes.set_ylabel("GB/s, of the passes of the kernel's specification")
    axes.grid(visible=True, axis="y", color="#dddddd", linewidth=0.6)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")


def _by_size(group: Sequence[Record], name: str) -> list[Record]:
    return sorted((record for record in group if _name(record) == name), key=lambda record: record["elements"])


def _input_bytes(record: Record) -> float:
    """Bytes of the inputs, of which a kernel that writes moves as many as one of them more."""
    written = (4 if record["dtype"] == "f32" else 2) if record["writes"] else 0
    return float((record["bytes_per_element"] - written) * record["elements"])


def _ticks(least: float, most: float) -> tuple[list[float], list[str]]:
    """Powers of 4 with their names, of which at least one lies in the range."""
    known = [(4**power, _say_bytes(4**power)) for power in range(5, 21)]
    kept = [(value, name) for value, name in known if least / 2 <= value <= most * 2]
    return [float(value) for value, _ in kept], [name for _, name in kept]


def _say_bytes(size: int) -> str:
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >> shift:
            return f"{size >> shift} {unit}"
    return f"{size} B"


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("history", type=Path, help="JSON lines of bench kernels --history")
    parser.add_argument("folder", type=Path, help="for the SVG files")
    options = parser.parse_args(arguments)
    try:
        for path in draw_all(list(records.read(options.history)), options.folder):
            print(path)
    except (OSError, ValueError) as error:
        raise SystemExit(f"{options.history}: {error}") from error


if __name__ == "__main__":
    main()
