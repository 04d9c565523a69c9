"""A pickle of tensors as plain values: an interpreter of the opcodes that torch.save writes, and of no others.

Nothing is imported and nothing is called. What a pickle names is looked up in a table (`standins.py`), and a name that
is not there ends the reading. It uses no recursion, and what it holds is bounded by the number of steps.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import BinaryIO

from pymerge.checkpoint.standins import Call, Storage, Tensor, find_global, read_storage
from pymerge.errors import FormatError

__all__ = ["Unpickled", "unpickle"]

#: Bytes of a pickle at most, and its opcodes. A tensor takes about 200 bytes and 40 steps; what a step makes takes some
#: 100 bytes besides those that it reads.
MAX_BYTES = 256 << 20
MAX_STEPS = 8_000_000
#: Bytes of an integer at most: sizes have 8.
_INTEGER = 16
#: Characters of a global's module or name.
_NAME = 500


class Unpickled:
    """What a pickle held.

    Attributes:
        value: made of None, bool, int, float, str, bytes, tuple, list, dict (for OrderedDict too) and stand-ins.
        tensors: all that were rebuilt, wherever in the value they are, or whether they are in it at all.
    """

    def __init__(self, value: object, tensors: list[Tensor]) -> None:
        self.value = value
        self.tensors = tensors


def unpickle(file: BinaryIO, size: int, path: object) -> Unpickled:
    """Read one pickle from where `file` stands; it then stands behind it.

    Args:
        size: how many bytes there are for it.
        path: for messages.

    Raises:
        FormatError: it is damaged, too large, or holds what is no part of weights.
    """
    machine = _Machine(file, min(size, MAX_BYTES), path)
    machine.limited = size > MAX_BYTES
    return machine.run()


class _Machine:
    """The stack, the memo, and one method for each kind of opcode."""

    def __init__(self, file: BinaryIO, left: int, path: object) -> None:
        self.limited = False
        self._file = file
        self._left = left
        self._path = path
        self._stack: list[object] = []
        self._marks: list[list[object]] = []
        self._memo: dict[int, object] = {}
        self._tensors: list[Tensor] = []

    def run(self) -> Unpickled:
        codes, take = _CODES, self._take
        for _ in range(MAX_STEPS):
            code = take(1)
            if code == b".":
                value = self._pop()
                if self._stack or self._marks:
                    raise self._damaged("ends before all of it is put together")
                return Unpickled(value, self._tensors)
            step = codes.get(code)
            if step is None:
                raise self._damaged(f"has the opcode 0x{code.hex()}, which torch.save does not write")
            step(self)
        raise self._damaged(f"has more than {MAX_STEPS:,} steps, more than any model needs")

    def _damaged(self, what: str) -> FormatError:
        return FormatError(f"{self._path}: its pickle {what}; is it a file of weights that torch.save wrote?")

    def _take(self, size: int) -> bytes:
        if size > self._left:
            raise self._damaged(
                f"is larger than {MAX_BYTES:,} bytes, more than any model needs" if self.limited else "is cut short"
            )
        self._left -= size
        data = self._file.read(size)
        if len(data) < size:
            raise self._damaged("is cut short")
        return data

    def _number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self._take(size), "little", signed=signed)

    def _pop(self) -> object:
        if not self._stack:
            raise self._damaged("takes more than there is")
        return self._stack.pop()

    def _pop_mark(self) -> list[object]:
        if not self._marks:
            raise self._damaged("takes more than there is")
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _text(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise self._damaged("holds text that is not UTF-8") from None

    # What is pushed.

    def _constant(self, value: object) -> None:
        self._stack.append(value)

    def _integer(self, size: int, signed: bool) -> None:
        self._stack.append(self._number(size, signed=signed))

    def _long(self) -> None:
        size = self._number(1)
        if size > _INTEGER:
            raise self._damaged(f"has an integer of {size} bytes")
        self._integer(size, True)

    def _float(self) -> None:
        self._stack.append(struct.unpack(">d", self._take(8))[0])

    def _string(self, size: int) -> None:
        self._stack.append(self._text(self._take(self._number(size))))

    def _bytes(self, size: int) -> None:
        self._stack.append(self._take(self._number(size)))

    def _list(self) -> None:
        self._stack.append([])

    def _dict(self) -> None:
        self._stack.append({})

    def _drop(self) -> None:
        self._pop()

    def _drop_mark(self) -> None:
        self._pop_mark()

    # What is put together.

    def _mark(self) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _tuple_of_mark(self) -> None:
        items = tuple(self._pop_mark())
        self._stack.append(items)

    def _tuple(self, size: int) -> None:
        items = [self._pop() for _ in range(size)]
        self._stack.append(tuple(reversed(items)))

    def _append(self) -> None:
        self._extend([self._pop()])

    def _appends(self) -> None:
        self._extend(self._pop_mark())

    def _extend(self, items: list[object]) -> None:
        target = self._stack[-1] if self._stack else None
        if not isinstance(target, list):
            raise self._damaged("adds to what is no list")
        target.extend(items)

    def _set_item(self) -> None:
        value = self._pop()
        self._update([self._pop(), value])

    def _set_items(self) -> None:
        self._update(self._pop_mark())

    def _update(self, items: list[object]) -> None:
        target = self._stack[-1] if self._stack else None
        if not isinstance(target, dict) or len(items) % 2:
            raise self._damaged("adds to what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Tuples of tuples would be hashed by recursion.
            if not isinstance(key, (str, int, float, bytes)):
                raise self._damaged(f"has a dict with a key of type {type(key).__name__}")
            target[key] = value

    # The memo.

    def _get(self, size: int) -> None:
        index = self._number(size)
        if index not in self._memo:
            raise self._damaged("refers to what it has not made")
        self._stack.append(self._memo[index])

    def _put(self, size: int) -> None:
        self._remember(self._number(size))

    def _memoize(self) -> None:
        self._remember(len(self._memo))

    def _remember(self, index: int) -> None:
        if not self._stack:
            raise self._damaged("keeps what is not there")
        self._memo[index] = self._stack[-1]

    # Names, and what is done with them.

    def _line(self) -> str:
        found = bytearray()
        while (byte := self._take(1)) != b"\n":
            found += byte
            if len(found) > _NAME:
                raise self._damaged(f"has a name of more than {_NAME} bytes")
        return self._text(bytes(found))

    def _global(self) -> None:
        module = self._line()
        self._stack.append(find_global(module, self._line(), self._path))

    def _global_of_stack(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str) or len(name) + len(module) > _NAME:
            raise self._damaged("has a name that is none")
        self._stack.append(find_global(module, name, self._path))

    def _reduce(self) -> None:
        arguments, call = self._pop(), self._pop()
        if not isinstance(call, Call) or not isinstance(arguments, tuple):
            raise self._damaged("calls what is no function")
        made = call.make(arguments, self._path)
        if isinstance(made, Tensor) and made not in arguments:
            self._tensors.append(made)
        self._stack.append(made)

    def _build(self) -> None:
        # Of an OrderedDict: `_metadata`, the versions of modules. A tensor in it is found missing from the value.
        self._pop()
        if not self._stack or not isinstance(self._stack[-1], dict):
            raise self._damaged("sets attributes of what has none")

    def _persistent(self) -> None:
        found: Storage = read_storage(self._pop(), self._path)
        self._stack.append(found)

    def _protocol(self) -> None:
        if self._number(1) > 5:
            raise self._damaged("is of an unknown protocol")

    def _frame(self) -> None:
        if self._number(8) > self._left:
            raise self._damaged("is cut short")


_CODES: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine._protocol,
    b"\x95": _Machine._frame,
    b"(": _Machine._mark,
    b"0": _Machine._drop,
    b"1": _Machine._drop_mark,
    b"N": lambda machine: machine._constant(None),
    b"\x88": lambda machine: machine._constant(True),
    b"\x89": lambda machine: machine._constant(False),
    b"J": lambda machine: machine._integer(4, True),
    b"K": lambda machine: machine._integer(1, False),
    b"M": lambda machine: machine._integer(2, False),
    b"\x8a": _Machine._long,
    b"G": _Machine._float,
    b"X": lambda machine: machine._string(4),
    b"\x8c": lambda machine: machine._string(1),
    b"\x8d": lambda machine: machine._string(8),
    # Text of Python 2.
    b"U": lambda machine: machine._string(1),
    b"T": lambda machine: machine._string(4),
    b"C": lambda machine: machine._bytes(1),
    b"B": lambda machine: machine._bytes(4),
    b")": lambda machine: machine._constant(()),
    b"t": _Machine._tuple_of_mark,
    b"\x85": lambda machine: machine._tuple(1),
    b"\x86": lambda machine: machine._tuple(2),
    b"\x87": lambda machine: machine._tuple(3),
    b"]": _Machine._list,
    b"a": _Machine._append,
    b"e": _Machine._appends,
    b"}": _Machine._dict,
    b"s": _Machine._set_item,
    b"u": _Machine._set_items,
    b"h": lambda machine: machine._get(1),
    b"j": lambda machine: machine._get(4),
    b"q": lambda machine: machine._put(1),
    b"r": lambda machine: machine._put(4),
    b"\x94": _Machine._memoize,
    b"c": _Machine._global,
    b"\x93": _Machine._global_of_stack,
    b"R": _Machine._reduce,
    b"b": _Machine._build,
    b"Q": _Machine._persistent,
}
