"""Sources as tensors of the compiled core: mapped files, and what is derived from them while it is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from pymerge import _core
from pymerge.backends.files import read_into
from pymerge.checkpoint.sources import Dequantized, Given, LowRank, Noise, Rows
from pymerge.checkpoint.values import Source, StoredTensor
from pymerge.plan.values import Staged

__all__ = ["Read", "Tensors", "open_tensors"]

#: Fills a buffer with bytes from a place on.
Read: TypeAlias = Callable[[int, Any], None]


class Tensors:
    """Makes tensors; a file is mapped once, a derived tensor made once until it is let go.

    What was made elsewhere, a stage's tensor, cannot be made again here: several tasks may read it (tied embeddings,
    slices that overlap), and the last of them lets it go.
    """

    def __init__(self, map_file: Callable[[str, bool], _core.MappedFile], in_place: bool = True) -> None:
        """`in_place`: mapped pages may be read where they are and stay resident for a moment."""
        self._map_file = map_file
        self._in_place = in_place
        self._files: dict[tuple[str, bool], _core.MappedFile] = {}
        # The source is kept too, so that no other one has its identity.
        self._derived: dict[int, tuple[Source, _core.Tensor]] = {}
        self._users: Counter[int] = Counter()

    def get(self, source: Source) -> _core.Tensor:
        """The tensor of a source."""
        if isinstance(source, StoredTensor):
            return self._stored(source, self._in_place)
        known = self._derived.get(id(source))
        if known is None:
            known = self._derived[id(source)] = (source, self._derive(source))
        return known[1]

    def put(self, source: Source, tensor: _core.Tensor) -> None:
        """Say for one more task what a source is that was made elsewhere."""
        self._users[id(source)] += 1
        self._derived[id(source)] = (source, tensor)

    def reader(self, source: Source) -> Read:
        """What fills a buffer with a source's bytes from a place on, both of whole elements."""
        if isinstance(source, StoredTensor):
            return lambda begin, out: read_into(source.path, source.offset + begin, out)
        tensor, size = self.get(source), source.dtype.itemsize
        return lambda begin, out: tensor.read_into(begin // size, out)

    def let_go(self, sources: Iterable[Source]) -> None:
        """Forget what was derived for the sources of a task; whoever reads it keeps it."""
        self._let_go(sources, set())

    def _let_go(self, sources: Iterable[Source], done: set[int]) -> None:
        # As often as it was put: see `follow` (execute/programs.py).
        for source in sources:
            if isinstance(source, StoredTensor) or id(source) in done:
                continue
            done.add(id(source))
            self._let_go(source.parts, set() if isinstance(source, Staged) else done)
            self._users[id(source)] -= 1
            if self._users[id(source)] <= 0:
                del self._users[id(source)]
                self._derived.pop(id(source), None)

    def _stored(self, stored: StoredTensor, in_place: bool) -> _core.Tensor:
        file = self._files.get((stored.path, in_place))
        if file is None:
            file = self._files[stored.path, in_place] = self._map_file(stored.path, in_place)
        return _core.Tensor.from_file(file, stored.offset, stored.count, stored.dtype.code)

    def part(self, source: Source) -> _core.Tensor:
        """A source that another one is derived from: it is read here and there, so never in place."""
        return self._stored(source, False) if isinstance(source, StoredTensor) else self.get(source)

    def _derive(self, source: Source) -> _core.Tensor:
        make: Callable[[Tensors, Any], _core.Tensor] = _MAKERS[type(source)]
        return make(self, source)

    def _take_rows(self, source: Rows) -> _core.Tensor:
        width = source.count // max(1, len(source.choice.starts) - 1)
        choice = source.choice
        parts = [self.part(matrix) for matrix in source.matrices]
        return _core.Tensor.take_rows(parts, choice.starts, choice.parts, choice.rows, width, source.dtype.code)

    def _add_low_rank(self, source: LowRank) -> _core.Tensor:
        rows, columns = source.shape
        updates = [(self.part(u.a), self.part(u.b), u.rank, u.scale, u.transposed) for u in source.updates]
        return _core.Tensor.add_low_rank(
            None if source.base is None else self.part(source.base), updates, rows, columns
        )

    def _dequantize(self, source: Dequantized) -> _core.Tensor:
        codes = self.part(source.codes)
        if source.scales is None:
            return _core.Tensor.unpack_blocks(codes, source.scheme)
        scales = self.part(source.scales)
        if source.block is None:
            *_, columns, rows = source.shape
            return _core.Tensor.scale_groups(codes, scales, rows, columns // 32)
        *_, rows, columns = source.shape
        return _core.Tensor.scale_blocks(
            codes, scales, (source.count // (rows * columns), rows, columns, *source.block)
        )

    def _add_noise(self, source: Noise) -> _core.Tensor:
        base = None if source.base is None else self.part(source.base)
        return _core.Tensor.add_noise(base, source.count, source.key, source.scale, source.kind)

    def _take_given(self, source: Given) -> _core.Tensor:
        assert source.data is not None, source.name
        return _core.Tensor.from_buffer(source.data, source.dtype.code)


_MAKERS: dict[type[Any], Callable[[Tensors, Any], _core.Tensor]] = {
    Rows: Tensors._take_rows,
    LowRank: Tensors._add_low_rank,
    Dequantized: Tensors._dequantize,
    Noise: Tensors._add_noise,
    Given: Tensors._take_given,
}


def open_tensors() -> Tensors:
    """For reading here and there, outside of a merge: nothing stays resident."""
    return Tensors(lambda path, in_place: _core.MappedFile(path), in_place=False)
