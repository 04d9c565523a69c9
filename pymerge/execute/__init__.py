"""From a schedule to tensors on disk, and the same programs on tensors in memory."""

from __future__ import annotations

from pymerge.execute.run import execute
from pymerge.execute.values import ExecutionReport, OnProgress, Progress

__all__ = ["ExecutionReport", "OnProgress", "Progress", "execute"]
