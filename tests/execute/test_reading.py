"""How often the bytes of the inputs are read: once a pass, whatever reads ahead and wherever they lie."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from execute.merges import make_recipe, run, schedule, write_models
from skip_gate import can_mount

#: Elements of the one tensor: 8 MiB of bfloat16, too little for a file to be read in place.
COUNT = 4 << 20


@pytest.fixture(params=["disk", "tmpfs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk, and one in memory, where the system cannot say at once what is cached."""
    if request.param == "disk":
        yield tmp_path
        return
    if not can_mount():
        pytest.skip("needs the right to mount file systems")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(tmp_path)], check=True)
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def bytes_read() -> int:
    """What this process has had copied to it by read() and its kin."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar"))


@pytest.mark.parametrize(
    ("method", "models", "passes"),
    [
        ("linear", 3, 1),
        ("slerp", 2, 2),
        ("nuslerp", 3, 2),
        ("multislerp", 4, 2),
        ("karcher", 3, 2),
        ("model_stock", 3, 2),
        ("nuslerp-rows", 3, 2),
        ("nuslerp-columns", 2, 2),
        ("model_stock-rows", 3, 2),
        ("ties", 3, 2),
        ("breadcrumbs", 3, 2),
        ("dare_ties", 3, 2),
        ("della", 3, 2),
        ("arcee_fusion", 2, 3),
        # What differs most is found without the base.
        ("sce", 4, 2.75),
        ("magmax", 4, 1),
    ],
)
def test_a_pass_reads_every_byte_once(place: Path, method: str, models: int, passes: float) -> None:
    random = np.random.default_rng(0)
    values = (random.standard_normal((COUNT // 1024, 1024)) * 0.02 for _ in range(4))
    tensors = [{"w": value.astype(ml_dtypes.bfloat16)} for value in values]
    recipe = make_recipe(method, write_models(place, tensors))
    made = schedule(recipe, block=1 << 20, buffers=4)
    before = bytes_read()
    output = run(made, place / "out")
    copied = bytes_read() - before - sum(map(len, output.files.values()))  # run() reads the result
    wanted = passes * models * COUNT * 2
    # Beside it: headers, a select's sample, the last tie of a cut.
    assert wanted <= copied <= 1.1 * wanted
