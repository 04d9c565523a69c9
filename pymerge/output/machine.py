"""What this machine is and can do, for the manifest and for `pymerge doctor`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pymerge
from pymerge.schedule.machine import usable_memory, usable_processors

__all__ = ["describe_machine", "diagnose"]


def describe_machine() -> dict[str, Any]:
    """What may matter to somebody who wants the same result again."""
    from pymerge import _core

    # Not `platform`, whose import is a part of the start of every merge.
    system = os.uname()
    return {
        "system": system.sysname,
        "machine": system.machine,
        "python": sys.version.partition(" ")[0],
        "isa": _core.active_isa(),
    }


def diagnose(folder: Path) -> dict[str, Any]:
    """Everything `pymerge doctor` reports, as plain values.

    Args:
        folder: where a merge would write; its file system is probed.
    """
    from pymerge import _core
    from pymerge.backends import available

    direct, why = _core.probe_direct_io(str(folder))
    return {
        "pymerge": pymerge.__version__,
        **describe_machine(),
        "isa_levels": [{"name": name, "supported": supported} for name, supported in _core.isa_levels()],
        "threads": usable_processors(),
        "memory": usable_memory(),
        "backends": [{"name": name, "available": ok, "reason": reason} for name, ok, reason in available()],
        "direct_io": {"folder": str(folder), "available": direct, "reason": why},
    }
