"""pymerge inspect MODEL."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pymerge.cli import options
from pymerge.cli.console import Format, print_facts, print_json, print_table
from pymerge.cli.quantities import format_bytes
from pymerge.errors import printable


def inspect(
    model: Annotated[str, typer.Argument(help="A model folder, or one weight file.", metavar="MODEL")],
    tensors: options.tensors = False,
    answer: options.answer = Format.HUMAN,
    verbose: options.verbose = False,
) -> None:
    """Say what MODEL holds: architecture, layers, types, sizes. Reads headers only."""
    from pymerge.output.inventory import take_inventory

    facts = take_inventory(model)
    listed = facts.pop("tensors")
    if answer is Format.JSON:
        print_json({**facts, "tensors": listed} if tensors else facts)
        return
    if answer is Format.QUIET:
        return
    print_facts(_phrase(facts))
    if tensors:
        print()
        rows = ((each["name"], each["dtype"], each["shape"], format_bytes(each["nbytes"])) for each in listed)
        print_table(("tensor", "dtype", "shape", "size"), rows)


def _phrase(facts: dict[str, Any]) -> dict[str, str]:
    dtypes = ", ".join(f"{name} {count:,}" for name, count in facts["dtypes"].items())
    return {
        "model": facts["model"],
        "architecture": facts["architecture"],
        "layers": "\n        ".join(printable(f"{prefix} x {count}") for prefix, count in facts["layers"].items())
        or "none found",
        "tensors": f"{facts['count']:,} ({dtypes})",
        "parameters": f"{facts['parameters']:,}",
        "size": f"{format_bytes(facts['nbytes'])} in {facts['files']} x {' and '.join(facts['formats'])}",
    }
