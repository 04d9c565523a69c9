"""One command as a fresh process, watched from outside: time, memory, bytes."""

from __future__ import annotations

import contextlib
import os
import shlex
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["CommandFailedError", "Usage", "run"]

#: Seconds between looks before the first byte is written, and between looks at memory after that.
_SOON = 0.002
_LATER = 0.01
#: Bytes handed to write calls from which on they are taken to be the output's.
_FIRST_BYTES = 4096
#: Bytes of the error output that a failure shows.
_TAIL = 2000


class CommandFailedError(RuntimeError):
    """A command ended with another status than 0; the message has the end of what it said."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a finished process took; seconds since its start, and bytes.

    Attributes:
        cpu: user plus system seconds, threads and waited-for children included.
        anonymous, file_backed: peaks of resident memory, from a look every 10 ms.
        disk_read, disk_written: bytes moved from and to disks; the page cache's share is not in it.
        first_write: when the first write of 4 KiB or more had returned, None if none was seen.
        stdout: what it printed.
    """

    wall: float
    cpu: float
    anonymous: int
    file_backed: int
    disk_read: int
    disk_written: int
    first_write: float | None
    stdout: str


class _Watch:
    """Looks at a running process until told to stop."""

    def __init__(self, pid: int, started: float) -> None:
        self._proc = Path(f"/proc/{pid}")
        self._started = started
        self._done = threading.Event()
        self.peaks = {"RssAnon": 0, "RssFile": 0}
        self.first_write: float | None = None
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        next_memory = 0.0
        while not self._done.wait(_SOON if self.first_write is None else _LATER):
            now = time.perf_counter()
            with contextlib.suppress(OSError):  # the process is gone
                if self.first_write is None and self._value("io", "wchar") >= _FIRST_BYTES:
                    self.first_write = now - self._started
                if now >= next_memory:
                    next_memory = now + _LATER
                    for name, peak in self.peaks.items():
                        self.peaks[name] = max(peak, self._value("status", name) * 1024)

    def _value(self, file: str, name: str) -> int:
        for line in (self._proc / file).read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
        return 0


def run(command: list[str], environment: dict[str, str] | None = None) -> Usage:
    """Run a command to its end.

    Args:
        command: program and arguments; the program is looked up on the path.
        environment: variables on top of this process's. PYTHONDONTWRITEBYTECODE is left out: users' modules are
            compiled since their first merge.

    Raises:
        CommandFailedError: it could not be started, or its status was not 0.
    """
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        actions: list[tuple[Any, ...]] = [
            (os.POSIX_SPAWN_DUP2, stdout.fileno(), 1),
            (os.POSIX_SPAWN_DUP2, stderr.fileno(), 2),
        ]
        variables = {**os.environ, **(environment or {})}
        variables.pop("PYTHONDONTWRITEBYTECODE", None)
        started = time.perf_counter()
        try:
            pid = os.posix_spawnp(command[0], command, variables, file_actions=actions)
        except OSError as error:
            raise CommandFailedError(f"{command[0]}: {error.strerror}") from error
        watch = _Watch(pid, started)
        _, status, usage = os.wait4(pid, 0)
        wall = time.perf_counter() - started
        watch.stop()
        said = []
        for file in (stdout, stderr):
            file.seek(0)
            said.append(file.read().decode(errors="replace"))
    if status:
        code = os.waitstatus_to_exitcode(status)
        raise CommandFailedError(f"{shlex.join(command)} ended with status {code}:\n{said[1][-_TAIL:]}")
    return Usage(
        wall=wall,
        cpu=usage.ru_utime + usage.ru_stime,
        anonymous=watch.peaks["RssAnon"],
        file_backed=watch.peaks["RssFile"],
        disk_read=usage.ru_inblock * 512,
        disk_written=usage.ru_oublock * 512,
        first_write=watch.first_write,
        stdout=said[0],
    )
