"""A finished merge goes to a hub: weight files first, each as soon as it is whole, then one commit of everything."""

from __future__ import annotations

import os
import queue
import re
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from pymerge.checkpoint.folder import is_hub_id
from pymerge.errors import Problem, PymergeError, RecipeError, ResourceError
from pymerge.hub.client import load
from pymerge.hub.finished import list_finished

__all__ = ["Publisher", "push"]

#: Weights that an earlier model of the same name may have left, and that a loader could take for this one's.
_WEIGHTS = re.compile(r"(model|pytorch_model)(-\d{5}-of-\d{5})?\.(safetensors|bin)(\.index\.json)?")
_MESSAGE = "Upload a merge made with pymerge"


def push(
    folder: str | os.PathLike[str],
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str = _MESSAGE,
    progress: bool = False,
) -> str:
    """Upload a finished merge.

    Args:
        folder: what `merge` made.
        repo: `user/name` on the hub; made if it is not there.
        private: make it a private one, if it is new; a public one is refused.
        revision: the branch; None for the main one. Made if it is not there.
        message: of the commit.
        progress: let the client show progress bars on stderr.

    Returns:
        Where it is, as an URL.

    Raises:
        RecipeError: the folder holds no finished merge, or the name is none.
        FormatError: its files are not those that were written.
        ResourceError: the hub does not take it.
    """
    path = Path(folder).expanduser()
    weights, _ = list_finished(path)
    with Publisher(repo, private=private, revision=revision, message=message, progress=progress) as publisher:
        for name in weights:
            publisher.add(path / name)
        return publisher.finish(path)


class Publisher:
    """Uploads weight files in a thread of its own while a merge goes on; `finish` commits. Use it as a context."""

    def __init__(
        self,
        repo: str,
        *,
        private: bool = False,
        revision: str | None = None,
        message: str = _MESSAGE,
        progress: bool = False,
    ) -> None:
        """Arguments as of `push`. Make the repository, so that what is not allowed is known before anything is merged.

        Raises:
            RecipeError: the name is none, it is a public repository though `private` was asked for, or there is no
                `huggingface_hub`.
            ResourceError: the hub refuses.
        """
        if not is_hub_id(repo):
            raise RecipeError([Problem(f'"{repo}" is no name of a repository', None, "the form is user/name")])
        self._hub = load("an upload to the hub")
        self._api = self._hub.HfApi(library_name="pymerge")
        self._repo = repo
        self._revision = revision
        self._message = message
        # The client's bars would run through the merge's own; it has one switch for all of them.
        self._silenced = not progress and not self._hub.utils.are_progress_bars_disabled()
        self._paths: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._added: dict[str, Any] = {}
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="pymerge-push", daemon=True)
        try:
            self._api.create_repo(repo, private=private or None, exist_ok=True)
            if private and not self._api.model_info(repo).private:
                hint = f"make it private at {self._hub.constants.ENDPOINT}/{repo}/settings, or name another one"
                raise RecipeError([Problem(f'"{repo}" is there already, and everybody may read it', None, hint)])
            if revision is not None:
                self._api.create_branch(repo, branch=revision, exist_ok=True)
        except PymergeError:
            raise
        except Exception as error:
            raise self._refusal(error) from error

    def __enter__(self) -> Publisher:
        if self._silenced:
            self._hub.utils.disable_progress_bars()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What is on its way when a merge fails is of no use without the rest; the hub forgets it.
        self._paths.put(None)
        if self._silenced:
            self._hub.utils.enable_progress_bars()

    def add(self, path: Path) -> None:
        """Upload a weight file that is whole."""
        self._paths.put(path)

    def finish(self, folder: Path) -> str:
        """Wait for the uploads, and commit them with the other files of a finished merge.

        Raises:
            ResourceError: the hub refused something; the folder is complete all the same.
        """
        self._paths.put(None)
        again = f"the merge is whole in {folder}: pymerge push {folder} {self._repo}"
        try:
            while self._thread.is_alive():
                self._thread.join(0.1)
            weights, beside = list_finished(folder)
            if self._error:
                raise self._error
            additions = [self._added.get(name) or self._addition(folder / name, name) for name in [*weights, *beside]]
            there = self._api.list_repo_files(self._repo, revision=self._revision)
            stale = [name for name in there if _WEIGHTS.fullmatch(name) and name not in (*weights, *beside)]
            removals = [self._hub.CommitOperationDelete(path_in_repo=name) for name in stale]
            self._api.create_commit(
                self._repo, [*additions, *removals], commit_message=self._message, revision=self._revision
            )
        except KeyboardInterrupt as error:
            raise type(error)(f"interrupted; {again}") from None
        except PymergeError:
            raise
        except Exception as error:
            raise ResourceError(f"{self._refusal(error)}; {again}") from error
        branch = f"/tree/{self._revision}" if self._revision else ""
        return f"{self._hub.constants.ENDPOINT}/{self._repo}{branch}"

    def _addition(self, path: Path, name: str) -> Any:
        return self._hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(path))

    def _run(self) -> None:
        while (path := self._paths.get()) is not None:
            if self._error is not None:
                continue
            try:
                addition = self._addition(path, path.name)
                self._api.preupload_lfs_files(self._repo, additions=[addition], revision=self._revision)
                self._added[path.name] = addition
            except Exception as error:  # told by finish()
                self._error = error

    def _refusal(self, error: Exception) -> ResourceError:
        # What went wrong is at the end of the chain; before it stands what was being done.
        last: BaseException = error
        while last.__cause__ is not None:
            last = last.__cause__
        said = " ".join(str(last).split())[:300] or type(last).__name__
        return ResourceError(
            f'"{self._repo}" cannot be written on {self._hub.constants.ENDPOINT} ({said}); check the name, and that '
            "HF_TOKEN is one that may write there"
        )
