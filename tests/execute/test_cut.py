"""An input that loses bytes while it is read in place ends the merge with its name, not the process with a signal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from execute.merges import make_recipe, write_models
from skip_gate import can_mount

from pymerge.backends.files import read_into
from pymerge.errors import FormatError, ResourceError

TESTS = Path(__file__).resolve().parent.parent
#: Of the one tensor, 70 MiB: a file shows how it is kept only from 16 MiB on, in three places.
SHAPE = (35 << 10, 1024)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """Two models where the system keeps files in huge pages, which are read in place."""
    if not can_mount():
        pytest.skip("needs the right to mount file systems")
    folder = tmp_path_factory.mktemp("huge")
    mount = ["mount", "-t", "tmpfs", "-o", "size=200m,huge=always", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount file systems with huge pages")
    try:
        ones = np.ones(SHAPE, ml_dtypes.bfloat16)
        yield write_models(folder, [{"w": ones}, {"w": ones * 2}])
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def merge_and_cut(folder: Path, recipe: dict[str, Any], file: Path, kept: int) -> dict[str, Any]:
    """How a merge ends one of whose inputs is cut; the input is made whole again."""
    (folder / "recipe.json").write_text(json.dumps(recipe))
    (folder / "out").mkdir()
    content = file.read_bytes()
    command = [sys.executable, "-m", "execute.cut", "recipe.json", "out", str(file), str(kept)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    finally:
        file.write_bytes(content)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["when"] > 0, "it was over before it was cut"
    return answer


@pytest.mark.parametrize("method", ["linear", "slerp", "passthrough"])
@pytest.mark.parametrize("kept", [0, 30_000_001])
def test_an_input_that_is_cut_while_it_is_read_is_named(
    tmp_path: Path, models: list[Path], method: str, kept: int
) -> None:
    recipe = make_recipe(method, models, dtype="bfloat16")
    if method == "passthrough":
        recipe["parameters"] = {}  # bytes as they are, written from where they are mapped
    file = Path(recipe["models"][0]["model"]) / "model.safetensors"
    answer = merge_and_cut(tmp_path, recipe, file, kept)
    assert answer["exit"] == 3
    assert answer["message"].startswith(f"{file}: the file has become shorter while it was read; wait until")
    assert answer["copied"] < 4 << 20, "read in place"
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_copied_from_a_file_that_was_cut_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(b"12345678")
    out = np.zeros(4, np.uint8)
    read_into(str(path), 3, out)
    assert out.tobytes() == b"4567"
    with pytest.raises(FormatError, match="bytes: the file has become shorter while it was read"):
        read_into(str(path), 5, out)
    with pytest.raises(ResourceError, match="cannot read: No such file"):
        read_into(str(tmp_path / "absent"), 0, out)
    read_into(str(path), 100, np.zeros(0, np.uint8))
