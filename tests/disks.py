"""File systems of their own for tests that need a certain one: made in a file, mounted, taken away again."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

MIB = 1 << 20
#: Kind -> options of its mkfs, and the least size that it takes.
KINDS: dict[str, tuple[tuple[str, ...], int]] = {
    "btrfs": (("-q",), 128 * MIB),
    "ext4": (("-q", "-m", "0"), 8 * MIB),
    "xfs": (("-q", "-m", "reflink=1"), 320 * MIB),
}


def lacks_tool(kind: str) -> bool:
    """Whether nothing here makes file systems of this kind."""
    return shutil.which(f"mkfs.{kind}") is None


@contextmanager
def mounted(kind: str, folder: Path, size: int = 0) -> Iterator[Path]:
    """A new file system of `size` bytes or the least there is, in and below `folder`, gone at the end."""
    options, least = KINDS[kind]
    image, place = folder / f"{kind}.image", folder / kind
    place.mkdir(parents=True)
    with image.open("wb") as stream:
        stream.truncate(max(size, least))
    try:
        subprocess.run([f"mkfs.{kind}", *options, str(image)], check=True, capture_output=True)
        subprocess.run(["mount", "-t", kind, "-o", "loop", str(image), str(place)], check=True, capture_output=True)
        try:
            yield place
        finally:
            # What a failed test still holds open must not keep the mount in sight.
            if subprocess.run(["umount", str(place)], capture_output=True, check=False).returncode:
                subprocess.run(["umount", "--lazy", str(place)], check=True)
    finally:
        image.unlink()


@cache
def forbids_image(kind: str) -> bool:
    """Whether this process may not mount files as disks of this kind, or the system does not know the kind."""
    with TemporaryDirectory() as folder:
        try:
            with mounted(kind, Path(folder)):
                return False
        except (OSError, subprocess.CalledProcessError):
            return True


def find_hindrance(kind: str) -> str | None:
    """Why there can be no such disk here, as a reason that tests/skip_gate.py knows."""
    if lacks_tool(kind):
        return f"needs mkfs.{kind}"
    return f"needs the right to mount an image of {kind}" if forbids_image(kind) else None
