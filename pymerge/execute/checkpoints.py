"""Checkpoints: now and then, what is written is synced, and the journal told."""

from __future__ import annotations

import threading

from pymerge import _core
from pymerge.execute.journal import Journal
from pymerge.schedule.values import Schedule

__all__ = ["Checkpoints"]

#: Seconds between checkpoints: what a crash may cost. A sync between direct writes takes some 10 ms.
EVERY = 2.0


class Checkpoints:
    """Collects the digests of written tensors, and records them once they are durable.

    Attributes:
        digests: tensor -> digest, of what is written so far.
    """

    def __init__(self, engine: _core.Engine, journal: Journal | None, schedule: Schedule) -> None:
        self.digests: dict[str, str] = {}
        self._engine = engine
        self._journal = journal
        self._schedule = schedule
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        if journal is not None:
            self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
            self._thread.start()

    def check(self) -> None:
        """Raise what went wrong with a checkpoint."""
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        """Make no more of them. Idempotent."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def take(self) -> None:
        """Make one now.

        Raises:
            ResourceError: the disk refuses.
        """
        written = self.collect()
        if self._journal is not None and written:
            self._engine.sync()
            self._journal.record(written)

    def collect(self) -> dict[str, str]:
        """Note the digests of what was written since the last call; returns those."""
        tasks, shards = self._schedule.plan.tasks, self._schedule.shards
        new = {
            tasks[shards[shard].placements[segment - 1].task].name: digest
            for shard, segment, digest in self._engine.take_written()
            if segment > 0  # 0 is the header
        }
        self.digests.update(new)
        return new

    def _run(self) -> None:
        while not self._ended.wait(EVERY):
            try:
                self.take()
            except BaseException as error:  # told by check()
                self._error = error
                return
