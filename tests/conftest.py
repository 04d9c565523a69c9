"""Fixtures that all tests share; builders of checkpoints are in toys.py."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toys
from skip_gate import SkipGate

# Before anything that reads it is imported: no test asks a hub, but for those that bring one (tests/hub).
os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_configure(config: pytest.Config) -> None:
    """Put the rule about skips in force."""
    config.pluginmanager.register(SkipGate(), "skip-gate")


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folder of a small transformers model of a family; each is built once per session."""
    built: dict[str, Path] = {}

    def build(family: str, *, seed: int = 0, **changes: Any) -> Path:
        key = f"{family}-{seed}-{sorted(changes.items())}"
        if key not in built:
            built[key] = toys.save_toy(family, tmp_path_factory.mktemp(family), seed=seed, **changes)
        return built[key]

    return build


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the working directory, so that recipes can use relative paths."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
