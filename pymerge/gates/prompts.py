"""Prompts as token ids, by the base's tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pymerge.checkpoint import Checkpoint
from pymerge.checkpoint.json_files import parse_json
from pymerge.errors import FormatError
from pymerge.vocabulary.reading import FAST, SETTINGS, SPECIALS, read_files, role_text
from pymerge.vocabulary.slow import convert

__all__ = ["Prompts"]


class Prompts:
    """Turns prompts into ids: the text that begins a text, then the prompt, and nothing that a template adds."""

    def __init__(self, base: Checkpoint) -> None:
        """Load the tokenizer; that there is one was seen to when all was planned.

        Raises:
            FormatError: a file is damaged, or has to be converted and cannot be.
        """
        folder = base.folder
        files = read_files(folder)
        if FAST not in files:
            files = {**files, **convert(folder, tuple(files))}
        self._folder = folder
        self._tokenizer = _load(folder, files[FAST])
        # What a file may ask for besides: ids of nothing, and ends of prompts that are lost.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        settings = [parse_json(folder / name, files[name]) for name in (SETTINGS, SPECIALS) if name in files]
        self._start = next((text for each in settings if (text := role_text(each, "bos_token"))), "")

    def encode(self, prompt: str, rows: int) -> list[int]:
        """Ids of a prompt.

        Args:
            rows: of the base's embedding.

        Raises:
            FormatError: the tokenizer gives ids that the embedding does not have, or none at all.
        """
        ids: list[int] = self._tokenizer.encode(self._start + prompt, add_special_tokens=False).ids
        if not ids:
            raise FormatError(f"{self._folder}: the tokenizer makes no token of the prompt {prompt!r}")
        if max(ids) >= rows:
            raise FormatError(
                f"{self._folder}: the tokenizer gives the id {max(ids)} in the prompt {prompt!r}, and the embedding "
                f"has {rows} rows"
            )
        return ids


def _load(folder: Path, content: bytes) -> Any:
    import tokenizers

    try:
        return tokenizers.Tokenizer.from_str(content.decode())
    except Exception as error:  # the library raises nothing more special
        raise FormatError(f"{folder / FAST}: the tokenizers library cannot read it: {error}") from None
