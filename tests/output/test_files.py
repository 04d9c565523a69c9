"""Small files are whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pymerge.errors import ResourceError
from pymerge.output.extras import copy_extras
from pymerge.output.files import copy_file, write_json, write_text


def test_text_is_written_as_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "größer\n")
    assert (tmp_path / "a").read_bytes() == "größer\n".encode()


def test_json_ends_with_a_newline_and_keeps_its_order(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": 1, "a": "é"})
    assert (tmp_path / "a").read_text(encoding="utf-8") == '{\n  "b": 1,\n  "a": "é"\n}\n'


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ResourceError, match=r"a: cannot be written: No space left"):
        write_text(tmp_path / "a", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_a_copy_follows_links(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("x")
    (tmp_path / "link").symlink_to("blob")
    copy_file(tmp_path / "link", tmp_path / "copy")
    assert not (tmp_path / "copy").is_symlink()
    assert (tmp_path / "copy").read_text() == "x"


def test_extras_are_the_files_of_the_list_that_the_donor_has(tmp_path: Path) -> None:
    donor, out = tmp_path / "donor", tmp_path / "out"
    (donor / "additional_chat_templates").mkdir(parents=True)
    out.mkdir()
    for name in ("tokenizer.json", "vocab.json", "chat_template.jinja", "preprocessor_config.json", "weights.bin"):
        (donor / name).write_text(name)
    (donor / "additional_chat_templates" / "tools.jinja").write_text("t")
    copied = copy_extras(donor, out, tokenizer=True)
    assert copied == (
        "preprocessor_config.json",
        "tokenizer.json",
        "vocab.json",
        "chat_template.jinja",
        "additional_chat_templates/tools.jinja",
    )
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == sorted(copied)
