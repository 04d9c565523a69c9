"""The executor: sets up an engine and a way to feed it, sees the merge through, and leaves the output
folder in order whatever happens: complete, to be resumed, or as it was.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pymerge import _core
from pymerge.backends import DEVICE_BACKENDS, load_lanes, load_ops, resolve_backend
from pymerge.errors import PymergeError, add_note
from pymerge.execute.arrivals import Arrivals, Gate
from pymerge.execute.auto import choose_backend
from pymerge.execute.checkpoints import Checkpoints
from pymerge.execute.feeders import Feeder, StreamFeeder
from pymerge.execute.flow import Flow
from pymerge.execute.inputs import check_unchanged
from pymerge.execute.journal import Journal
from pymerge.execute.restore import restore, temporary_name
from pymerge.execute.usage import disk_bytes, name_limit
from pymerge.execute.values import ExecutionReport, OnProgress, OnShard
from pymerge.schedule.values import Schedule, Shard

__all__ = ["execute"]

_WRITERS = 2
#: Threads that read for a device, at most; and the part of the memory budget that they may have in pieces on their way
#: to devices.
_LOADERS = 6
_STAGED = 8


def _make_feeder(
    backend: str,
    engine: _core.Engine,
    schedule: Schedule,
    devices: Sequence[str],
    vram: int | None,
    allow_nonfinite: bool,
) -> Feeder:
    resources, plan = schedule.resources, schedule.plan
    if backend == "cpu":
        return StreamFeeder(engine, resources.in_place)
    ops = load_ops(backend)
    if backend not in DEVICE_BACKENDS:
        from pymerge.execute.host import HostFeeder

        return HostFeeder(engine, ops, allow_nonfinite)
    from pymerge.execute.device import DeviceFeeder
    from pymerge.execute.warm import WarmUp

    before = WarmUp(plan.method, plan.tasks, ops).wait if ops.compiles_at_launch else None
    loaders = min(_LOADERS, resources.threads)
    lanes = load_lanes(backend, devices, vram, resources.memory // _STAGED // loaders)
    return DeviceFeeder(engine, lanes, loaders, schedule, before)


def _reserve(schedule: Schedule, folder: Path, reflink: bool) -> None:
    """Set the output's space aside, but for files that can share a part of it with the inputs."""
    for shard in schedule.shards:
        twins = (placement.twin for placement in shard.placements if placement.in_step and reflink)
        twin = next(twins, None)
        if twin is None or not _core.can_share(str(folder), twin.path):
            _core.reserve_output(str(folder / temporary_name(shard.name)), shard.size)


def _leave(schedule: Schedule, folder: Path, flow: Flow, journal: Journal | None, error: BaseException) -> None:
    """Tidy up after a failure: what is finished stays if a journal knows of it."""
    if journal is not None and journal.recorded:
        add_note(
            error,
            f"{len(journal.recorded)} of {len(schedule.plan.tasks)} tensors are kept in {folder}: run the same "
            "command again to go on, or with --restart to begin anew",
        )
        return
    remove_output(schedule.shards, folder, flow.opened)


def remove_output(shards: Sequence[Shard], folder: Path, opened: int = 0) -> None:
    """Remove what was written of shards, the first `opened` of which may have their final names."""
    for number, shard in enumerate(shards):
        # While the temporary file is there, the final name can only be an older merge's.
        temporary = folder / temporary_name(shard.name)
        if temporary.exists():
            temporary.unlink()
        elif number < opened:
            (folder / shard.name).unlink(missing_ok=True)


def execute(
    schedule: Schedule,
    folder: Path,
    *,
    backend: str = "auto",
    devices: Sequence[str] = (),
    vram: int | None = None,
    allow_nonfinite: bool = False,
    reflink: bool = True,
    journal: Journal | None = None,
    on_progress: OnProgress | None = None,
    arrivals: Arrivals | None = None,
    on_shard: OnShard | None = None,
) -> ExecutionReport:
    """Write every shard of a schedule into `folder`.

    Shards appear under their final names only when whole and synced. With a journal, tensors that it
    records and whose bytes are there are not merged again; on failure what is finished stays for a
    later attempt, and the error carries a note that says so. If nothing is, the folder is as it was.

    Args:
        devices: for a backend of devices, such as "cuda:0"; they share the tensors. None: the current one.
        vram: bytes of each device that may be used; None takes most of what is free.
        arrivals: brings inputs that are not here yet.
        on_shard: called with each weight file that is complete.

    Raises:
        NonFiniteError: a merged value is not finite (unless `allow_nonfinite`).
        DTypeError: integer tensors disagree between the models.
        FormatError: an input changed or cannot be read.
        ResourceError: the disk or memory ran out.
        BackendError: the backend was asked for by name and cannot run.
    """
    choice = choose_backend(schedule) if backend == "auto" else None
    name = resolve_backend(choice.backend if choice else backend)
    resources = schedule.resources
    started = time.monotonic()
    cpu, disk = time.process_time(), disk_bytes()
    engine = _core.Engine(
        threads=resources.threads,
        block=resources.block,
        buffers=resources.buffers,
        writers=_WRITERS,
        direct=True,
        stop_on_nonfinite=not allow_nonfinite,
        gathered=resources.gathered,
        masks=resources.masks,
    )
    feeder = _make_feeder(name, engine, schedule, devices, vram, allow_nonfinite)
    checkpoints = Checkpoints(engine, journal, schedule)
    flow = Flow(
        schedule,
        folder,
        engine,
        feeder,
        checkpoints,
        allow_nonfinite=allow_nonfinite,
        reflink=reflink,
        report=on_progress,
        gate=Gate(schedule, arrivals) if arrivals else None,
        on_shard=on_shard,
    )
    doubtful = False
    try:
        check_unchanged(schedule.plan.models)
        kept = restore(schedule, folder, {} if journal is None else journal.recorded, flow.tell)
        if journal is not None:
            journal.recorded = dict(kept.digests)
        _reserve(schedule, folder, reflink)
        flow.run(kept)
        engine.stop()
        doubtful = True
        check_unchanged(schedule.plan.models)
        _core.sync_folder(str(folder))
        feeder.close()
        if journal is not None:
            journal.record(checkpoints.digests, durable=False)
    except BaseException as error:
        if arrivals:
            arrivals.close()
        engine.stop()
        checkpoints.end()
        if doubtful and journal is not None:
            journal.forget()
        elif not doubtful:
            with suppress(PymergeError):
                checkpoints.take()
        feeder.close()
        engine.close()
        _leave(schedule, folder, flow, journal, error)
        raise
    engine.close()
    flow.memory.sample()
    status = engine.status()
    seconds = time.monotonic() - started
    return ExecutionReport(
        seconds=seconds,
        cpu_seconds=time.process_time() - cpu,
        read=status["read"],
        written=status["written"] - status["shared"] - status["kept"],
        copied=flow.copied,
        shared=status["shared"],
        kept=status["kept"],
        peak_anonymous=flow.memory.anonymous,
        peak_resident=flow.memory.resident,
        measure_seconds=status["measure_seconds"],
        fill_seconds=status["fill_seconds"],
        limit=name_limit(
            status["measure_seconds"] + status["fill_seconds"],
            status["cpu_seconds"],
            seconds * resources.threads,
            (disk_bytes() - disk) / max(1, status["read"]),
        ),
        direct=status["direct"],
        nonfinite=flow.nonfinite,
        digests={**kept.digests, **checkpoints.digests},
        backend=name,
        reason=choice.reason if choice else "",
        no_room=feeder.no_room,
    )
