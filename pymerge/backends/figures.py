"""What this machine's GPUs do, measured once and kept: rates of copies, and how long the first use of one takes.

Whether there is a GPU is found out from the system's files, without torch, whose import alone takes as long as a
small merge. Figures are kept in the user's cache folder, under the GPU's name, the driver and this version.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import pymerge
from pymerge.backends.choice import DeviceFigures

__all__ = ["find_devices", "load_figures", "measure_figures"]

#: Where NVIDIA's driver tells what there is; tests have a folder of their own.
_DRIVER = Path("/proc/driver/nvidia")
#: What hides GPUs from a process, or orders them.
_VISIBLE = "CUDA_VISIBLE_DEVICES"
#: Bytes that are copied in, out and within, after as many that are not counted.
_COPIED = 64 << 20


def find_devices() -> list[str]:
    """Names of the GPUs that the driver lists, and its version; empty without either. Reads a few small files."""
    if os.environ.get(_VISIBLE, "0") in ("", "-1"):
        return []
    try:
        version = (_DRIVER / "version").read_text(encoding="utf-8").splitlines()[0]
        paths = sorted((_DRIVER / "gpus").glob("*/information"))
        names = [re.search(r"^Model:\s*(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE) for path in paths]
    except (OSError, IndexError, UnicodeDecodeError):
        return []
    return [f"{name[1].strip()}, {version.strip()}{_say_visible()}" for name in names if name]


def _say_visible() -> str:
    """Of several GPUs, which one is meant; the driver lists them all."""
    return f", {_VISIBLE}={os.environ[_VISIBLE]}" if _VISIBLE in os.environ else ""


def load_figures(device: str, measure: Callable[[], DeviceFigures]) -> DeviceFigures:
    """The figures that are kept of a device, or else measured and kept.

    Args:
        device: as `find_devices` names it.
        measure: measures them; raises what it raises.
    """
    key = f"{device}, pymerge {pymerge.__version__}"
    path = _cache_folder() / f"device-{sha256(key.encode()).hexdigest()[:16]}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["key"] == key:
            return DeviceFigures(**{name: float(kept[name]) for name in DeviceFigures.__dataclass_fields__})
    figures = measure()
    # A folder that cannot be written costs a measurement each time, nothing more.
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps({"key": key, **asdict(figures)}, indent=1), encoding="utf-8")
        temporary.replace(path)
    return figures


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return Path(home if home else "~/.cache").expanduser() / "pymerge"


def measure_figures(began: float) -> DeviceFigures:
    """Measure the current GPU, in a fifth of a second from its first use on.

    Args:
        began: `time.perf_counter()` before torch was imported; the first use of the GPU is part of this.
    """
    import torch

    device = torch.device("cuda")
    there = torch.empty(_COPIED, dtype=torch.uint8, device=device)
    here = torch.empty(_COPIED, dtype=torch.uint8, pin_memory=True)
    other = torch.empty_like(there)

    def rate(run: Callable[[], Any], moved: int) -> float:
        run()
        torch.cuda.synchronize()
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        return moved / max(time.perf_counter() - started, 1e-9)

    torch.cuda.synchronize()
    start = time.perf_counter() - began
    return DeviceFigures(
        into=rate(lambda: there.copy_(here, non_blocking=True), _COPIED),
        out=rate(lambda: here.copy_(there, non_blocking=True), _COPIED),
        copy=rate(lambda: other.copy_(there), 2 * _COPIED),
        start=start,
        memory=torch.cuda.get_device_properties(device).total_memory,
    )
