"""`huggingface_hub`, loaded late, and its errors as pymerge's: which model, which file, what to do."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from pymerge.errors import FormatError, Problem, PymergeError, RecipeError, ResourceError

__all__ = ["cannot_reach", "explain", "load"]


def load(what: str) -> Any:
    """The module `huggingface_hub`.

    Args:
        what: what needs it, for the message.

    Raises:
        RecipeError: it is not installed.
    """
    try:
        # It loads its parts when they are first imported, and not when they are asked for.
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError:
        hint = "pip install 'pymerge[hub]'"
        raise RecipeError(
            [Problem(f"{what}, which takes huggingface_hub, and that is not installed", None, hint)]
        ) from None
    return huggingface_hub


@dataclass(frozen=True, slots=True)
class _Answer:
    """What an error means; `{repo}`, `{page}` and `{error}` are filled in."""

    what: str
    advice: str
    error: type[PymergeError] = FormatError


_TOKEN = "set HF_TOKEN, or run: hf auth login"
_AGAIN = "what has come stays: run the same command again to go on"
_FORBIDDEN = _Answer("the hub refuses it ({error})", f"check that the account may read it, and {_TOKEN}")
_CONNECTION = _Answer("the connection to the hub failed ({error})", f"check the network; {_AGAIN}")
_OFFLINE = _Answer(
    "is neither a folder here nor complete in the hub's cache, and HF_HUB_OFFLINE forbids to fetch it",
    "unset that, or name a folder",
    RecipeError,
)

#: Names of errors (of classes, so that no client has to be loaded to read this) -> what they mean.
_ANSWERS = {
    "OfflineModeIsEnabled": _OFFLINE,
    "GatedRepoError": _Answer(
        "is gated: its authors ask to accept a license first", f"accept it at {{page}}, then {_TOKEN}"
    ),
    "DisabledRepoError": _Answer("was disabled by the hub", "see {page}"),
    "RepositoryNotFoundError": _Answer(
        "is neither a folder here nor a model of the hub that this account may see",
        f"check the name; if it is private, {_TOKEN}",
        RecipeError,
    ),
    "RevisionNotFoundError": _Answer("has no such revision", "see the branches and tags at {page}", RecipeError),
    "HFValidationError": _Answer("is no name that a model can have ({error})", "check the name", RecipeError),
    "EntryNotFoundError": _Answer("the hub has no such file any more (404)", f"see {{page}}; {_AGAIN}"),
    "LocalEntryNotFoundError": _CONNECTION,
    "TransportError": _CONNECTION,
    "RequestException": _CONNECTION,
    "ConnectionError": _CONNECTION,
    "TimeoutError": _CONNECTION,
}
#: The same for answers of a server that has no error of its own for them.
_STATUS = {401: _FORBIDDEN, 403: _FORBIDDEN, 404: _ANSWERS["EntryNotFoundError"]}
_FULL = (errno.ENOSPC, errno.EDQUOT)


def explain(error: Exception, repo: str, name: str = "") -> PymergeError:
    """An error of the client or its transport as one of pymerge's.

    Args:
        repo: `owner/name`.
        name: of the file that was asked for.
    """
    subject = f'model "{repo}"' + (f": {name}" if name else "")
    found = _root(error)
    if isinstance(found, OSError) and found.errno in _FULL:
        return ResourceError(
            f"{subject}: the disk of the hub's cache is full; make room there, or name another folder: "
            "HF_HUB_CACHE, or --transformers-cache"
        )
    answer = _find_answer(found)
    page = f"{load(subject).constants.ENDPOINT}/{repo}"
    said = " ".join(str(found).split())[:300] or type(found).__name__
    what, advice = (text.format(repo=repo, page=page, error=said) for text in (answer.what, answer.advice))
    if answer.error is RecipeError:
        return RecipeError([Problem(f"{subject} {what}", None, advice)])
    return answer.error(f"{subject}: {what}; {advice}")


def cannot_reach(error: Exception) -> bool:
    """Whether the hub could not be asked at all: there may be an answer in its cache."""
    found = _root(error)
    return _find_answer(found) in (_CONNECTION, _OFFLINE) or _status(found) >= 500


def _root(error: Exception) -> Exception:
    """What is behind "cannot be found here, and could not be fetched"."""
    cause = error.__cause__
    return cause if type(error).__name__ == "LocalEntryNotFoundError" and isinstance(cause, Exception) else error


def _status(error: Exception) -> int:
    return getattr(getattr(error, "response", None), "status_code", 0) or 0


def _find_answer(error: Exception) -> _Answer:
    for kind in type(error).__mro__:
        if kind.__name__ in _ANSWERS:
            return _ANSWERS[kind.__name__]
        if kind.__name__ == "HfHubHTTPError":
            return _STATUS.get(_status(error), _Answer("the hub's answer is an error ({error})", _AGAIN))
    if "onsistency check failed" in str(error):
        return _Answer("what came is not of the size that the hub says ({error})", "run the same command again")
    return _Answer("cannot be fetched ({error})", _AGAIN)
