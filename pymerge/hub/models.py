"""A hub's models as places: what a plan needs is fetched first, weights are only described.

For a model that is not in the cache: its list of files (names, sizes, etags), config.json, index, tokenizer files, and
the headers of its safetensors files. Pickled files tell what they hold at their end and all over them, so they are
fetched whole before anything is planned.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pymerge.checkpoint.adapters import CONFIG as ADAPTER
from pymerge.checkpoint.json_files import MAX_BYTES, read_json
from pymerge.checkpoint.kinds import is_pickled
from pymerge.checkpoint.remote import Place, RemoteFile
from pymerge.checkpoint.tokenizer_files import find_tokenizer_files
from pymerge.errors import FormatError, Problem, PymergeError, RecipeError
from pymerge.hub.client import cannot_reach, explain, load
from pymerge.hub.names import choose_index, choose_small, choose_weights
from pymerge.hub.requests import Listing, download, fetch_header, list_files

__all__ = ["Hub"]

T = TypeVar("T")

#: Requests at once.
_REQUESTS = 6
#: Files named in a message about many.
_SHOWN = 5


class Hub:
    """The hub that the environment names, and a cache; every model is asked for once."""

    def __init__(self, cache: str | os.PathLike[str] | None = None, *, offline: bool = False) -> None:
        """Args are the cache's folder, None for the environment's; and whether to answer from the cache alone."""
        self._cache = None if cache is None else Path(cache).expanduser()
        self._offline = offline
        self._places: dict[tuple[str, str | None, bool], Place] = {}

    def locate(self, repo: str, revision: str | None, adapter: bool) -> Place:
        """Where a model is, or will be; `Locate` of pymerge/checkpoint/remote.py.

        Raises:
            RecipeError: there is no such model or revision, or no `huggingface_hub`.
            FormatError: it holds no weights that can be read, or cannot be fetched.
            ResourceError: the cache's disk is full.
        """
        key = repo, revision, adapter
        if key not in self._places:
            self._places[key] = self._find(repo, revision, adapter)
        return self._places[key]

    def _find(self, repo: str, revision: str | None, adapter: bool) -> Place:
        hub = load(f'model "{repo}" is no folder here and would be looked for on the hub')
        if self._offline:
            if place := self._find_cached(hub, repo, revision, adapter):
                return place
            what = f'model "{repo}" is neither a folder here nor in the hub\'s cache, and a check fetches nothing'
            raise RecipeError([Problem(what, None, "--model NAME=FOLDER says where it is")])
        try:
            return self._ask(hub, repo, revision, adapter)
        except PymergeError:
            raise
        except Exception as error:
            place = self._find_cached(hub, repo, revision, adapter) if cannot_reach(error) else None
            if place is None:
                found = explain(error, repo)
                raise (type(found)(f"{found} (it is no folder here)") if found.exit_code == 3 else found) from error
            if type(error).__name__ == "OfflineModeIsEnabled":
                return place
            note = f'the hub cannot be reached: "{repo}" is taken from its cache, as of commit {place.folder.name[:8]}'
            return replace(place, notes=(note, *place.notes))

    def _ask(self, hub: Any, repo: str, revision: str | None, adapter: bool) -> Place:
        listing = list_files(hub, repo, revision)
        small = choose_small(listing.files, adapter=adapter)
        self._check(listing, small)
        # The first one by the name that the recipe has: so the cache learns which commit that is.
        folder = self._download(hub, repo, small[0], revision).parent.resolve()
        if folder.name != listing.commit:
            raise FormatError(f'model "{repo}" changed while it was looked at; run the command again')
        _at_once(lambda name: self._download(hub, repo, name, listing.commit), small[1:])
        index = choose_index(listing.files)
        chosen = read_json(folder / index) if index and not adapter else None
        weights = choose_weights(listing.files, chosen, adapter=adapter)
        if not weights:
            held = sorted(name for name in listing.files if name.endswith((".gguf", ".pth", ".bin", ".safetensors")))
            listed = ", ".join(held[:_SHOWN]) + (", ..." if held[_SHOWN:] else "") or "no weights at all"
            raise FormatError(f'model "{repo}": has no weights under the names of a model; it has {listed}')

        def describe(name: str) -> tuple[Path, RemoteFile]:
            size, etag = listing.files[name]
            header = b""
            if not (folder / name).exists():
                if is_pickled(name):
                    self._download(hub, repo, name, listing.commit)
                else:
                    header = self._guard(repo, name, lambda: fetch_header(hub, listing, name))
            return (folder / name), RemoteFile(repo, listing.commit, name, size, etag, header)

        return Place(folder, dict(_at_once(describe, weights)))

    def _check(self, listing: Listing, small: list[str]) -> None:
        if small[0] not in listing.files:
            hint = ": it is an adapter; name it with its model, as model+adapter" if ADAPTER in listing.files else ""
            raise FormatError(f'model "{listing.repo}": the hub has no {small[0]} of it{hint}')
        for name in small:
            size = listing.files[name][0]
            if size > MAX_BYTES:
                raise FormatError(f'model "{listing.repo}": {name} has {size:,} bytes, more than any model needs')

    def _download(self, hub: Any, repo: str, name: str, revision: str | None) -> Path:
        return self._guard(repo, name, lambda: download(hub, repo, name, revision, self._cache))

    @staticmethod
    def _guard(repo: str, name: str, act: Callable[[], T]) -> T:
        try:
            return act()
        except PymergeError:
            raise
        except Exception as error:
            raise explain(error, repo, name) from error

    def _find_cached(self, hub: Any, repo: str, revision: str | None, adapter: bool) -> Place | None:
        """A model as an earlier command left it in the cache."""
        first = ADAPTER if adapter else "config.json"
        found = hub.try_to_load_from_cache(repo, first, cache_dir=self._cache, revision=revision)
        if not isinstance(found, str):
            return None
        folder = Path(found).parent.resolve()
        remote = {}
        for path in folder.iterdir():
            # The cache's files are links to what is named by its etag.
            if path.is_symlink() and path.exists() and path.suffix in (".safetensors", ".bin"):
                etag = Path(os.readlink(path)).name
                remote[path] = RemoteFile(repo, folder.name, path.name, path.stat().st_size, etag)
        lacking = not adapter and not find_tokenizer_files(folder)
        return Place(folder, remote, (f'the hub\'s cache has no tokenizer of "{repo}"',) if lacking else ())


def _at_once(act: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """What `act` gives for each name, several at a time; Ctrl-C waits for none of them."""
    workers = ThreadPoolExecutor(_REQUESTS, thread_name_prefix="pymerge-hub")
    try:
        return [each.result() for each in [workers.submit(act, name) for name in names]]
    finally:
        workers.shutdown(wait=False, cancel_futures=True)
