"""The manifest: from which exact inputs, with which settings, on which machine a folder was made.

It names models as the recipe does and holds no absolute path, since output folders get published.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pymerge
from pymerge.output.fingerprint import digest_bytes
from pymerge.output.machine import describe_machine
from pymerge.output.report import MergeReport, describe_execution
from pymerge.schedule.values import Schedule

if TYPE_CHECKING:
    from pymerge.vocabulary import Vocabulary

__all__ = ["MANIFEST", "make_manifest"]

MANIFEST = "pymerge_manifest.json"

FORMAT = 1


def describe_vocabulary(vocabulary: Vocabulary) -> dict[str, Any]:
    """What became of the models' tokens, as plain values."""
    return {"tokens": vocabulary.size, "rows": vocabulary.rows, "added": dict(vocabulary.fates)}


def make_manifest(
    schedule: Schedule,
    identity: Mapping[str, Any],
    report: MergeReport,
    settings: Mapping[str, Any],
    files: Mapping[str, str],
) -> dict[str, Any]:
    """Build the manifest of a finished merge, as plain values.

    A tensor without a digest has the bytes of an input's, shared with it on the disk and never read.

    Args:
        files: SHA-256 of everything besides weights and manifest, by name.
    """
    plan = schedule.plan
    digests = report.execution.digests
    return {
        "format": FORMAT,
        "pymerge": pymerge.__version__,
        "method": plan.method.name,
        "seed": plan.seed,
        "settings": dict(settings),
        "machine": describe_machine(),
        "inputs": identity["inputs"],
        "tasks": identity["tasks"],
        "layout": identity["layout"],
        "donor": str(plan.models[plan.donor].ref),
        "outputs": [
            {"name": shard.name, "size": shard.size, "header_blake2b": digest_bytes(shard.header)}
            for shard in schedule.shards
        ],
        "digests": {task.name: digests.get(task.name) for task in plan.tasks},
        "extras": list(report.extras),
        "files": dict(files),
        **({} if plan.vocabulary is None else {"vocabulary": describe_vocabulary(plan.vocabulary)}),
        "warnings": list(report.warnings),
        "report": describe_execution(report.execution),
    }
