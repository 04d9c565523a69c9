"""Attempts at a merge in processes of their own, and what befalls them and their files."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pymerge
from pymerge import _core
from pymerge.errors import PymergeError, find_interrupt
from pymerge.execute import checkpoints
from pymerge.execute.journal import JOURNAL
from pymerge.output.folder import CONFIG

__all__ = ["Outcome", "Settings", "attempt", "damage"]

#: Seconds between an attempt's checkpoints: a merge of a few megabytes has several.
_CHECKPOINTS = 0.004


@dataclass(frozen=True, slots=True)
class Settings:
    """How an attempt runs; none of it may change a byte."""

    threads: int
    isa: str
    backend: str
    reflink: bool
    memory: int | None

    @classmethod
    def draw(cls, random: Random, backends: list[str]) -> Settings:
        """Random settings that this machine permits."""
        levels = [name for name, supported in _core.isa_levels() if supported]
        return cls(
            threads=random.randint(1, 4),
            isa=random.choice(levels),
            backend=random.choice(backends),
            reflink=random.random() < 0.5,
            memory=random.choice([None, 256 << 20, 1 << 30]),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        ended: done, refused (a PymergeError), stopped (by a signal), or failed (anything else).
        message: of the error.
        kept: bytes that were taken over from the attempts before.
        seconds: until it ended; `lingered` of them after the signal.
    """

    ended: str
    message: str
    kept: int
    seconds: float
    lingered: float


def attempt(
    recipe: Mapping[str, Any],
    out: Path,
    settings: Settings,
    *,
    shard_size: int,
    seed: int,
    strike: tuple[int, float] | None = None,
) -> Outcome:
    """Merge in a child process, which gets a signal after some seconds if `strike` says so."""
    reader, writer = os.pipe()
    began = time.monotonic()
    # Python drops an exception in what it does after a fork: an interrupt waits until the child can tell of it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            # What an interrupt in the middle of anything prints is of no interest.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            _merge(recipe, out, settings, shard_size, seed, writer)
        finally:
            os._exit(0)  # whatever comes, even an interrupt of what reports an interrupt
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.close(writer)
    struck = 0.0
    if strike is not None:
        number, delay = strike
        time.sleep(delay)
        struck = time.monotonic()
        os.kill(child, number)
    with os.fdopen(reader) as stream:
        said = stream.read()
    _, status = os.waitpid(child, 0)
    ended = time.monotonic()
    if not said:
        said = json.dumps({"ended": "stopped" if strike else "failed", "message": f"wait status {status}"})
    told = {"message": "", "kept": 0, **json.loads(said)}
    return Outcome(**told, seconds=ended - began, lingered=max(0.0, ended - struck) if struck else 0.0)


def _merge(recipe: Mapping[str, Any], out: Path, settings: Settings, shard_size: int, seed: int, writer: int) -> None:
    """The child's life."""
    checkpoints.EVERY = _CHECKPOINTS
    told: dict[str, Any]
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        _core.force_isa(settings.isa)
        report = pymerge.merge(
            recipe,
            out,
            backend=settings.backend,
            threads=settings.threads,
            memory=settings.memory,
            reflink=settings.reflink,
            shard_size=shard_size,
            seed=seed,
        )
        told = {"ended": "done", "kept": report.execution.kept}
    except PymergeError as error:
        told = {"ended": "refused", "message": str(error)}
    except BaseException as error:
        told = {"ended": "failed", "message": f"{type(error).__name__}: {error}"}
        if find_interrupt(error) is not None:
            told = {"ended": "stopped"}
    os.write(writer, json.dumps(told).encode())


def damage(out: Path, random: Random) -> str:
    """Do to the files of a killed attempt what a power cut or a bad disk may; returns what was done.

    A folder with a config.json is whole and synced: killed before it can take that away, the next attempt would
    leave what was done here, and be blamed for it.
    """
    if (out / CONFIG).exists():
        return "nothing"
    files = sorted(out.glob(".model*.partial")) + sorted(out.glob("model*.safetensors"))
    journal = out / JOURNAL
    kinds = ["tail", "bytes", "journal", "nothing"]
    kind = random.choice(kinds)
    if kind in ("tail", "bytes") and files:
        path = random.choice(files)
        size = path.stat().st_size
        if kind == "tail":
            os.truncate(path, random.randint(0, size))
        elif size:
            with path.open("r+b") as file:
                file.seek(random.randrange(size))
                file.write(random.randbytes(random.choice([1, 100, 5000])))
        return kind
    if kind == "journal" and journal.exists():
        content = journal.read_bytes()
        first = content.find(b"\n") + 1
        if first:
            journal.write_bytes(content[: random.randint(first, len(content))])
            return kind
    return "nothing"


#: Signals that an attempt may get.
SIGNALS = {"kill": signal.SIGKILL, "interrupt": signal.SIGINT}
