"""What `--backend auto` stands for, and how long each choice is expected to take: the stages' numbers, put together.

Without a GPU, and for small merges, nothing is measured and torch is not imported.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from pymerge.backends import DEVICE_BACKENDS, resolve_backend
from pymerge.backends.choice import (
    SMALL,
    Choice,
    DeviceFigures,
    Work,
    choose,
    device_room,
    expect_cpu,
    expect_device,
    free_share,
    say_seconds,
)
from pymerge.backends.figures import find_devices, load_figures, measure_figures
from pymerge.checkpoint.values import StoredTensor
from pymerge.errors import BackendError
from pymerge.plan.costs import Costs, count_costs
from pymerge.schedule.values import Schedule

__all__ = ["Expectation", "choose_backend", "expect"]


@dataclass(frozen=True, slots=True)
class Expectation:
    """Seconds that a merge is expected to take, files being as fast as memory.

    Attributes:
        cpu: by the processors.
        backend, device: the best backend of devices, and the seconds of the current GPU; None where none can be used.
        why_not: what stands against it; empty without a GPU.
        room: bytes of one tensor's sources and output that the GPU has room for; None where none can be used.
        partial: there are sources that are derived while they are read, and what that takes is not in it.
    """

    cpu: float
    backend: str | None = None
    device: float | None = None
    why_not: str = ""
    room: int | None = None
    partial: bool = False


def expect(schedule: Schedule, costs: Costs, shared: int = 0) -> Expectation:
    """Work out what each choice takes; measures for a fifth of a second, a GPU's first time for seconds.

    Args:
        costs: of the schedule's plan.
        shared: bytes that the output shares with the inputs.

    Raises:
        ResourceError: there is no memory for it.
    """
    from pymerge.execute.expect import count_work  # numpy, which a merge does without

    work = count_work(schedule, costs, shared)
    found = Expectation(
        expect_cpu(work),
        partial=any(not isinstance(source, StoredTensor) for task in schedule.plan.tasks for source in task.sources),
    )
    devices = find_devices()
    if not devices:
        return found
    try:
        return _add_device(found, work, devices[0])
    except (BackendError, RuntimeError) as error:  # torch's errors of devices are RuntimeErrors
        return replace(found, why_not=str(error).splitlines()[0])


def _add_device(expected: Expectation, work: Work, device: str) -> Expectation:
    found: list[str] = []

    def measure() -> DeviceFigures:
        began = time.perf_counter()
        found.append(_find_backend())
        return measure_figures(began)

    figures = load_figures(device, measure)
    seconds = expect_device(work, [figures])
    # Of kept figures it is not known which backend can run now: that takes torch, which is for who needs it.
    if not found and choose(expected.cpu, seconds, "").backend != "cpu":
        found.append(_find_backend())
    room = device_room(free_share(figures.memory))
    return replace(expected, backend=found[0] if found else DEVICE_BACKENDS[0], device=seconds, room=room)


def _find_backend() -> str:
    """The best backend of devices that can run.

    Raises:
        BackendError: none can; the last one's reason.
    """
    for name in DEVICE_BACKENDS[:-1]:
        try:
            return resolve_backend(name)
        except BackendError:
            continue
    return resolve_backend(DEVICE_BACKENDS[-1])


def choose_backend(schedule: Schedule) -> Choice | None:
    """What auto takes for a merge, and why; None where there is no GPU, and so nothing to choose: the processors.

    Raises:
        ResourceError: there is no memory to find out how fast this machine is.
    """
    if not find_devices():
        return None
    costs = count_costs(schedule.plan)
    if not costs.merged:
        return Choice("cpu", "every tensor is copied")
    if costs.read + costs.written <= SMALL:
        return Choice("cpu", "starting to use a GPU would take longer than the merge")
    found = expect(schedule, costs)
    if found.device is None or found.backend is None:
        return Choice("cpu", f"{say_seconds(found.cpu)} expected of the processors; no GPU is used: {found.why_not}")
    return choose(found.cpu, found.device, found.backend)
