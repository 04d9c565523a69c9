"""A seed's bytes are those of every earlier version: recorded digests of the random methods.

`python tests/methods/test_digests.py` records them anew. That breaks the promise to whoever has merged
with a seed, so it belongs into CHANGELOG.md.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pymerge

RECORDED = Path(__file__).with_name("digests.json")
PARAMETERS: dict[str, dict[str, Any]] = {
    "dare_linear": {"weight": [0.5, 0.75], "density": [0.4, 0.6]},
    "dare_ties": {"weight": [0.5, 0.75], "density": [0.4, 0.6]},
    "della": {"weight": [0.5, 0.75], "density": [0.4, 0.6], "epsilon": [0.15, 0.3]},
    "della_linear": {"weight": [0.5, 0.75], "density": [0.4, 0.6], "epsilon": [0.15, 0.3]},
}


def values(step: int) -> Any:
    """Numbers between -1 and 1 that no library draws."""
    places = np.arange(37 * 129, dtype=np.uint64)
    return ((places * np.uint64(step) % np.uint64(65_537)).astype(np.float32) / 32_768 - 1).reshape(37, 129)


def digest(method: str, backend: str) -> str:
    """SHA-256 of a merge of two models."""
    tensors = [values(40_503), values(12_289)]
    parameters = PARAMETERS[method]
    options = {"name": "layers.0.weight", "seed": 2024, "backend": backend}
    merged = pymerge.merge_tensors(method, tensors, base=values(31_337), parameters=parameters, **options)
    return hashlib.sha256(merged.astype("<f4").tobytes()).hexdigest()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("method", PARAMETERS)
def test_recorded_digest(method: str, backend: str) -> None:
    assert digest(method, backend) == json.loads(RECORDED.read_text())[method]


if __name__ == "__main__":
    made = {method: digest(method, "reference") for method in PARAMETERS}
    RECORDED.write_text(json.dumps(made, indent=2) + "\n")
