"""Two domains of text that ship with Python: its manual in prose, and the source of its library."""

from __future__ import annotations

import importlib
import inspect
from pydoc_data.topics import topics

#: Characters at the end of each text that nobody trains on: some 450 tokens.
HELD_OUT = 1800
SOURCES = ("argparse", "typing", "tarfile", "zipfile", "subprocess")


def read_texts() -> dict[str, tuple[str, str]]:
    """For each domain, the text to train on and the text that is held out."""
    texts = {
        "manual": "\n\n".join(topics[name] for name in sorted(topics)),
        "code": "\n\n".join(inspect.getsource(importlib.import_module(name)) for name in SOURCES),
    }
    return {domain: (text[:-HELD_OUT], text[-HELD_OUT:]) for domain, text in texts.items()}
