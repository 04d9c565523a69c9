"""Fixtures that all tests share; builders of checkpoints are in toys.py."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import moe_toys
import pytest
import toys
from skip_gate import SkipGate

# Before anything that reads it is imported: no test asks a hub, but for those that bring one (tests/hub).
os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_configure(config: pytest.Config) -> None:
    """Put the rule about skips in force; have Ctrl-C reach the commands that tests start.

    A shell that starts the tests in the background has them ignore it, and so do all that they start.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(SkipGate(), "skip-gate")


#: Tests of minutes: begun first, or one processor would wait for them at the end.
LONGEST = ("test_interpreted_kernels_give_the_specified_bits",)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest tests first."""
    items.sort(key=lambda item: item.name not in LONGEST)


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
def dense(tmp_path: Path, toy: Callable[..., Path]) -> Callable[..., None]:
    """Copies three toys of a family to b, which has a tokenizer, x and y."""

    def copy(family: str = "llama", **changes: Any) -> None:
        for seed, name in enumerate("bxy"):
            shutil.copytree(toy(family, seed=seed, **changes), tmp_path / name)
        moe_toys.write_tokenizer(tmp_path / "b")

    return copy


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the working directory, so that recipes can use relative paths."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
