"""pymerge doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pymerge.cli import options
from pymerge.cli.console import Format, print_facts, print_json
from pymerge.cli.quantities import format_bytes


def doctor(answer: options.answer = Format.HUMAN) -> None:
    """Say what this machine offers: instruction sets, backends, memory, direct I/O in this folder."""
    from pymerge.output.machine import diagnose

    facts = diagnose(Path.cwd())
    if answer is Format.JSON:
        print_json(facts)
    elif answer is Format.HUMAN:
        print_facts(_phrase(facts))


def _phrase(facts: dict[str, Any]) -> dict[str, str]:
    levels = ", ".join(
        level["name"] + ("" if level["supported"] else " (not on this machine)") for level in facts["isa_levels"]
    )
    direct = facts["direct_io"]
    return {
        "pymerge": facts["pymerge"],
        "python": f"{facts['python']} on {facts['system']} {facts['machine']}",
        "instruction set": f"{facts['isa']}; compiled: {levels}",
        "threads": str(facts["threads"]),
        "memory": format_bytes(facts["memory"]),
        **{f"backend {each['name']}": _mark(each) for each in facts["backends"]},
        "direct I/O": f"{_mark(direct)} ({direct['folder']})",
    }


def _mark(entry: dict[str, Any]) -> str:
    return "yes" if entry["available"] else f"no: {entry['reason']}"
