"""The bytes of every tensor: whether they are those that the merge wrote, and whether every value is finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pymerge import _core
from pymerge.checkpoint import StoredTensor
from pymerge.errors import PymergeError
from pymerge.verify.manifest import Manifest
from pymerge.verify.reading import map_threads, read_pieces
from pymerge.verify.ulp import find_nonfinite
from pymerge.verify.values import Check, Finding

__all__ = ["check_contents"]


@dataclass(frozen=True, slots=True)
class _Look:
    """What was seen of a tensor: its digest, and how many values are not finite, the first of them where."""

    name: str
    digest: str | None = None
    nonfinite: int = 0
    first: int = 0
    problem: str | None = None


def check_contents(tensors: Mapping[str, StoredTensor], manifest: Manifest | None, threads: int) -> tuple[Check, Check]:
    """Read every tensor; the checks "digests" and "finite"."""
    known = manifest.digests if manifest else None

    def look(stored: StoredTensor) -> _Look:
        try:
            digest = None
            if known is not None and known.get(stored.name):
                (digest,) = _core.digest_ranges(stored.path, [(stored.offset, stored.nbytes)], 1)
            # Read again while it is in memory.
            return _Look(stored.name, digest, *_count_nonfinite(stored))
        except PymergeError as error:
            return _Look(stored.name, problem=str(error))

    in_order = sorted(tensors.values(), key=lambda stored: (stored.path, stored.offset))
    looks = list(map_threads(look, in_order, threads))
    broken = tuple(Finding(each.problem, tensor=each.name) for each in looks if each.problem)
    seen = {each.name: each for each in looks if not each.problem}
    return _check_digests(seen, manifest, broken), _check_finite(seen, manifest, broken)


def _count_nonfinite(stored: StoredTensor) -> tuple[int, int]:
    """How many values are not finite, and the flat index of the first."""
    count = first = at = 0
    for piece in read_pieces(stored) if stored.dtype.mergeable else ():
        hits = find_nonfinite(piece)
        found = int(np.count_nonzero(hits))
        if found and not count:
            first = at + int(np.argmax(hits))
        count, at = count + found, at + piece.size
    return count, first


def _check_digests(seen: Mapping[str, _Look], manifest: Manifest | None, broken: tuple[Finding, ...]) -> Check:
    name = "digests"
    if manifest is None or manifest.digests is None:
        why = "the manifest has none" if manifest else "there is no manifest that could be read"
        return Check(name, f"not checked: {why}", broken, (Finding(why),))
    digests = manifest.digests
    wrong = [
        *broken,
        *(Finding("is not in the folder, the manifest has it", tensor=each) for each in digests if each not in seen),
        *(Finding("is not in the manifest", tensor=each) for each in seen if each not in digests),
        *(
            Finding("holds other bytes than the merge wrote", tensor=each.name)
            for each in seen.values()
            if digests.get(each.name) not in (None, each.digest)
        ),
    ]
    matched = sum(each.digest is not None and digests[each.name] == each.digest for each in seen.values())
    shared = sum(digest is None for digest in digests.values())
    summary = f"{matched:,} of {len(digests):,} tensors as they were written"
    if shared:
        summary += f"; {shared:,} have none, as they share the disk space of an input"
    return Check(name, summary, tuple(wrong))


def _check_finite(seen: Mapping[str, _Look], manifest: Manifest | None, broken: tuple[Finding, ...]) -> Check:
    allowed = manifest.nonfinite if manifest else {}
    bad = [each for each in seen.values() if each.nonfinite]
    # Where such values were allowed, those of tensors that were only copied were not counted.
    tolerant = manifest is not None and manifest.allow_nonfinite
    wrong = [
        Finding(
            f"{each.nonfinite:,} values are not finite, the first at flat index {each.first}"
            + (f"; the merge counted {allowed[each.name]:,}" if each.name in allowed else ""),
            tensor=each.name,
        )
        for each in bad
        if not tolerant or allowed.get(each.name, each.nonfinite) != each.nonfinite
    ]
    wrong += [
        Finding(f"all values are finite; the merge counted {count:,} that are not", tensor=name)
        for name, count in allowed.items()
        if name in seen and not seen[name].nonfinite
    ]
    total = sum(each.nonfinite for each in bad)
    summary = f"all values of {len(seen):,} tensors"
    if bad:
        summary = f"{total:,} values of {len(bad):,} tensors are not" + (", as was allowed" if not wrong else "")
    return Check("finite", summary, (*broken, *wrong))
