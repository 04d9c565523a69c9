"""What is asked of a hub, file by file: small files into its cache, and the headers of weight files."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymerge.errors import FormatError

__all__ = ["Listing", "download", "fetch_header", "list_files", "silent_bar"]

#: Bytes of the first request for a header; those of shards with up to about 1,500 tensors are shorter.
_FIRST = 1 << 18
#: As the compiled reader limits headers.
_MAX_HEADER = 100_000_000
_DIGITS = re.compile("[0-9a-f]{40}([0-9a-f]{24})?")


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at a commit: its files with sizes in bytes and etags."""

    repo: str
    commit: str
    files: dict[str, tuple[int, str]]


def list_files(hub: Any, repo: str, revision: str | None) -> Listing:
    """Ask for a repository's files; one request.

    Raises:
        FormatError: the answer is none of a hub.
    """
    timeout = getattr(hub.constants, "HF_HUB_ETAG_TIMEOUT", 10)
    info = hub.HfApi(library_name="pymerge").model_info(repo, revision=revision, files_metadata=True, timeout=timeout)
    files = {}
    for file in info.siblings or ():
        etag = file.lfs.sha256 if file.lfs else file.blob_id
        # Both become parts of paths.
        if file.size is not None and etag and _DIGITS.fullmatch(etag):
            files[file.rfilename] = (file.size, etag)
    if not info.sha or not _DIGITS.fullmatch(info.sha):
        raise FormatError(f'model "{repo}": the hub names no commit; check HF_ENDPOINT')
    return Listing(repo, info.sha, files)


def download(
    hub: Any, repo: str, name: str, revision: str | None, folder: Path | None, bar: type[Any] | None = None
) -> Path:
    """Have a file in the cache; returns where it is there."""
    more = {"tqdm_class": bar or silent_bar(hub)} if _takes_bars(hub) else {}
    return Path(hub.hf_hub_download(repo, name, revision=revision, cache_dir=folder, library_name="pymerge", **more))


def fetch_header(hub: Any, listing: Listing, name: str) -> bytes:
    """What a safetensors file begins with, up to its data; one request, two for long ones.

    Raises:
        FormatError: it is no safetensors file.
    """
    size, _ = listing.files[name]
    url = hub.hf_hub_url(listing.repo, name, revision=listing.commit)
    begin = _get(hub, url, 0, min(size, _FIRST))
    end = 8 + int.from_bytes(begin[:8], "little")
    if len(begin) < 8 or end > min(size, _MAX_HEADER):
        raise FormatError(
            f'model "{listing.repo}": {name}: header length {end - 8} is past the end of the file or over 100 MB; '
            "is it a safetensors file?"
        )
    if end > len(begin):
        begin += _get(hub, url, len(begin), end)
    return begin[:end]


def _get(hub: Any, url: str, begin: int, end: int) -> bytes:
    """The bytes [begin, end) of a file."""
    headers = {**hub.utils.build_hf_headers(library_name="pymerge"), "Range": f"bytes={begin}-{end - 1}"}
    headers["Accept-Encoding"] = "identity"
    timeout = getattr(hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 10)
    answer = hub.utils.http_backoff("GET", url, headers=headers, timeout=timeout)
    hub.utils.hf_raise_for_status(answer)
    content: bytes = answer.content
    return content if answer.status_code == 206 else content[begin:end]


def _takes_bars(hub: Any) -> bool:
    return "tqdm_class" in inspect.signature(hub.hf_hub_download).parameters


def silent_bar(hub: Any, note: Callable[[int], None] = lambda count: None) -> type[Any]:
    """A class of progress bars that shows nothing and calls `note` with the bytes that came."""

    class Silent(hub.utils.tqdm):  # type: ignore[misc]  # the base is known at run time only
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, count: float | None = 1) -> bool | None:
            note(int(count or 0))
            return None

    return Silent
