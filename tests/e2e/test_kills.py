"""Merges of every family, killed and interrupted at random points, end with the bytes of one that was not.

The same program runs for hours: `python -m tools.soak --minutes 600`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tools.soak.faults import damage

#: What the methods of a family have in common is how often they read what.
FAMILIES = {
    "copies and sums": "passthrough,linear,task_arithmetic",
    "in the span of their inputs": "slerp,karcher,model_stock,nuslerp",
    "order statistics": "ties,breadcrumbs,sce,arcee_fusion",
    "random masks": "dare_linear,dare_ties,della",
    "overlaps": "ram,ramplus_tl,nearswap,magmax",
}
STOPS = 50


@pytest.mark.parametrize("family", FAMILIES)
def test_fifty_stops_lose_no_byte(tmp_path: Path, family: str) -> None:
    command = [sys.executable, "-m", "tools.soak", "--kills", str(STOPS), "--methods", FAMILIES[family]]
    command += ["--backends", "cpu,cpu,cpu,reference", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["losses"] == 0
    assert told["kill"] + told["interrupt"] >= STOPS
    # Most stops come before or after the weights are written; some must have left something to go on with.
    assert told["resumed"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_whole_model_is_no_attempt_to_be_damaged(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    done = {damage(tmp_path, Random(seed)) for seed in range(100)}
    assert done == {"nothing", "tail", "bytes"}
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    (tmp_path / "config.json").write_text("{}")
    assert {damage(tmp_path, Random(seed)) for seed in range(100)} == {"nothing"}
    assert (tmp_path / "model.safetensors").read_bytes() == bytes(1000)
