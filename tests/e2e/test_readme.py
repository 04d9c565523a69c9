"""The README's recipe and its Python run as printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import toys

README = (Path(__file__).parent.parent.parent / "README.md").read_text()


def find_block(language: str) -> str:
    """The README's first block in a language."""
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found
    return found[1]


def test_the_example_runs(here: Path) -> None:
    for seed, name in enumerate(("base", "math", "code")):
        toys.write_llama(here / "models" / name, seed=seed)
    Path("recipe.yml").write_text(find_block("yaml"))
    names: dict[str, Any] = {"tensor": np.ones(4, np.float32), "other": np.arange(4, dtype=np.float32)}
    for scale, name in enumerate(("base", "math", "code")):
        names[name] = {"w": np.arange(4, dtype=np.float32) * scale}
    exec(find_block("python"), names)
    assert (here / "merged-model" / "config.json").exists()
    assert len(names["plan"].tasks) == names["report"].tensors
    assert names["merged"].shape == (4,)
    assert names["model"]["w"].shape == (4,)
