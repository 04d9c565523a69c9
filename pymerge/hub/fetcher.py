"""Weight files on their way: fetched by threads, in the order in which a merge needs them, while it merges others."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pymerge.checkpoint.remote import RemoteFile
from pymerge.errors import FormatError, PymergeError
from pymerge.hub.client import explain, load
from pymerge.hub.requests import download, silent_bar

__all__ = ["Fetcher"]

#: Files at a time: one connection seldom fills a line, more would delay the first file.
_THREADS = 2
#: Seconds that stopping waits for the threads to notice.
_PATIENCE = 0.5


class _StoppedError(BaseException):
    """Nobody waits for the file any more; no client may take this for a failed connection."""


class Fetcher:
    """Files that come while a merge runs; `Arrivals` of pymerge/execute/arrivals.py.

    Attributes:
        total: bytes of all that were asked for.
    """

    def __init__(self, files: Mapping[str, RemoteFile], cache: str | os.PathLike[str] | None = None) -> None:
        """`files`: by the path at which each will be."""
        self.total = 0
        self._files = files
        self._cache = None if cache is None else Path(cache).expanduser()
        self._waiting: list[str] = []
        self._arrived: set[str] = set()
        #: Bytes of each file that was begun.
        self._came: dict[str, int] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._error: PymergeError | None = None
        self._threads: list[threading.Thread] = []
        self._began = time.time()

    @property
    def fetched(self) -> int:
        """Bytes that came so far."""
        return sum(self._came.copy().values())

    def expect(self, paths: Sequence[str]) -> None:
        """Begin to fetch files, in this order."""
        self._waiting = [path for path in paths if path in self._files][::-1]
        self.total = sum(self._files[path].size for path in self._waiting)
        self._threads = [
            threading.Thread(target=self._run, name="pymerge-fetch", daemon=True)
            for _ in range(min(_THREADS, len(self._waiting)))
        ]
        for thread in self._threads:
            thread.start()

    def ready(self, paths: Iterable[str]) -> bool:
        """Whether files have come.

        Raises:
            FormatError: one of all that were asked for cannot come.
            ResourceError: the cache's disk is full.
        """
        if self._error is not None:
            raise self._error
        return self._arrived.issuperset(paths)

    def close(self) -> None:
        """Fetch nothing more. Idempotent."""
        self._stopped.set()
        until = time.monotonic() + _PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            self._sweep()

    def _run(self) -> None:
        hub = load("a merge of the hub's models")
        while not self._stopped.is_set():
            with self._lock:
                if not self._waiting:
                    return
                path = self._waiting.pop()
            file = self._files[path]
            try:
                self._fetch(hub, path, file)
            except _StoppedError:
                return
            except PymergeError as error:
                self._fail(error)
            except Exception as error:
                # By now the recipe is right: whatever it is, it is about the file.
                self._fail(explain(error, file.repo, file.name))

    def _fail(self, error: PymergeError) -> None:
        self._error = self._error or (error if error.exit_code != 2 else FormatError(str(error)))
        self._stopped.set()

    def _fetch(self, hub: Any, path: str, file: RemoteFile) -> None:
        def note(count: int) -> None:
            if self._stopped.is_set():
                raise _StoppedError
            self._came[path] += count

        self._came[path] = 0
        found = download(hub, file.repo, file.name, file.commit, self._cache, silent_bar(hub, note))
        _check(found, file)
        self._came[path] = file.size
        self._arrived.add(path)

    def _sweep(self) -> None:
        """Remove what a thread that could not be stopped leaves: it may end with the process, in the middle of a file.

        Only of clients that name such a file by chance, for no later attempt goes on with that.
        """
        for path, file in self._files.items():
            pattern = re.compile(rf"{file.etag}\.[0-9a-f]{{8}}\.incomplete")
            blobs = Path(path).parent.parent.parent / "blobs"
            for entry in os.scandir(blobs) if path in self._came and blobs.is_dir() else ():
                if pattern.fullmatch(entry.name) and entry.stat().st_mtime >= self._began:
                    Path(entry.path).unlink(missing_ok=True)


def _check(path: Path, file: RemoteFile) -> None:
    """Whether what came is what was planned with.

    Raises:
        FormatError: it is not.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        same = stream.read(len(file.header)) == file.header
    if size == file.size and same:
        return
    what = f"{size:,} bytes came, and the hub says {file.size:,}" if size != file.size else "its header is another now"
    raise FormatError(
        f'model "{file.repo}": {file.name}: {what}; remove {path.resolve()} and run the same command again'
    )
