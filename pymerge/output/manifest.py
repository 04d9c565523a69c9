"""The manifest: from which exact inputs, with which settings, on which machine a folder was made.

It names models as the recipe does and holds no absolute path, since output folders get published.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pymerge
from pymerge.checkpoint.values import Checkpoint
from pymerge.errors import FormatError
from pymerge.output.machine import describe_machine
from pymerge.output.report import MergeReport, describe_execution
from pymerge.schedule.values import Schedule

__all__ = ["digest_header", "make_manifest"]

FORMAT = 1


def make_manifest(schedule: Schedule, report: MergeReport, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Build the manifest of a finished merge, as plain values."""
    plan = schedule.plan
    return {
        "format": FORMAT,
        "pymerge": pymerge.__version__,
        "method": plan.method.name,
        "seed": plan.seed,
        "settings": dict(settings),
        "machine": describe_machine(),
        "inputs": [fingerprint(model) for model in plan.models],
        "donor": str(plan.models[plan.donor].ref),
        "outputs": [{"name": shard.name, "size": shard.size} for shard in schedule.shards],
        "extras": list(report.extras),
        "warnings": list(report.warnings),
        "report": describe_execution(report.execution),
    }


def fingerprint(model: Checkpoint) -> dict[str, Any]:
    """What tells this input from another: sizes, times and digests of the headers."""
    return {
        "model": str(model.ref),
        "files": [
            {"name": path.name, "size": size, "mtime_ns": mtime, "header_blake2b": digest_header(path)}
            for path, size, mtime in model.files
        ],
    }


def digest_header(path: Path) -> str:
    """BLAKE2b-128 of a safetensors file's header: names, types, shapes and offsets, not data.

    Raises:
        FormatError: the file ends inside its header.
    """
    with path.open("rb") as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > path.stat().st_size - 8:
            raise FormatError(f"{path}: ends inside its header; it changed while it was merged")
        return hashlib.blake2b(prefix + file.read(length), digest_size=16).hexdigest()
