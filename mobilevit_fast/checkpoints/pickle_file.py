"""Reading pickles of PyTorch in time and memory that the size of the file bounds.

`torch.load(weights_only=True)` runs no code, but a hundred bytes can keep it busy for years: a tuple of twice the same
tuple of twice the same tuple, forty deep, has 2^40 parts, and whoever hashes, prints or converts it meets all of them.
Others ask for gigabytes. So the instructions of a pickle are followed once without carrying them out before it is
loaded.
"""

import argparse
import io
import pickle
import pickletools
import sys
import threading
import warnings
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mobilevit_fast import limits

_ARCHIVE = b"PK\x03\x04"
_HEADER_PICKLES = 3  # of the older format, before the one with the tensors: a magic number, a version, the machine

_REBUILT = frozenset(f"torch._utils._rebuild_tensor{version}" for version in ("", "_v2", "_v3"))
_WITH_ATTRIBUTES = "torch._tensor._rebuild_from_type_v2"
_ENCODED = "_codecs.encode"
_SIZE = "torch.Size"
_CALLS = {
    *_REBUILT,
    *(_WITH_ATTRIBUTES, _ENCODED, _SIZE, "torch.device"),
    *("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"),
    *("collections.OrderedDict", "collections.Counter", "builtins.set", "builtins.complex"),
    "torch._utils._rebuild_meta_tensor_no_storage",
}
"""Functions that a pickle may call: these take time and memory of no more than their arguments."""

_NAMESPACE = "argparse.Namespace"
"""Class in which timm keeps the arguments of a training. It is allowed as an object of plain values, made empty and
then given these; torch.load is told of it for the time of one call."""
_TOLD = threading.Lock()

_WITH_KEYS = {"collections.OrderedDict", "collections.Counter", "builtins.set"}
_MANY_OF_ONE_HASH = sys.hash_info.modulus
"""From here on many whole numbers have the same hash, and a dictionary of them takes the square of their number."""

_ARGUMENTS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class _Global(NamedTuple):
    name: str


class _Namespace:
    """Stand-in for an argparse.Namespace."""


class _Storage(NamedTuple):
    elements: int


def read_pickle(path: Path, *, mmap: bool = False) -> object:
    """The content of a file of `torch.save`, in today's format or the older one without an archive, on the CPU.

    Args:
        path: of the file.
        mmap: map the file instead of copying it, where it is an archive.

    Raises:
        pickle.UnpicklingError: it holds something else than tensors and plain values; the message has `GLOBAL` and the
            name of what it needs.
        Exception: it is damaged; of which class, depends on where.
    """
    with path.open("rb") as file:
        is_archive = file.read(len(_ARCHIVE)) == _ARCHIVE
        file.seek(0)
        if is_archive:
            _check_archive(path)
            content = torch._C.PyTorchFileReader(file).get_record("data.pkl")  # the very bytes that torch.load takes
            rehearsal = _Rehearsal(content, path.stat().st_size)
            rehearsal.follow()
        else:
            content = file.read()
            rehearsal = _Rehearsal(content, len(content))
            for _ in range(_HEADER_PICKLES):
                rehearsal.count(rehearsal.follow())
            rehearsal.follow()
            rehearsal.count(rehearsal.follow())  # the keys of the storages
        del content
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pickle protocols: either it can be read or there is an error
        if not rehearsal.has_namespace:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and is_archive)
        with _TOLD, torch.serialization.safe_globals([argparse.Namespace]):  # which are one list for all threads
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and is_archive)


def _check_archive(path: Path) -> None:
    """See that an archive holds what it says without decompression: PyTorch's own writer never compresses."""
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise ValueError("its entries are larger than the file")


class _Rehearsal:
    """Follows the pickles of a file, without making what they describe.

    Dictionaries are lists of their keys and values here, so that nothing is hashed, and what a call would return is an
    empty object, or the list of a dictionary's first content. What torch.load will hash, print or give to a function is
    counted part by part, shared parts as often as they are met, and may have no more parts than the file has bytes.
    """

    def __init__(self, content: bytes, size: int) -> None:
        """Take the pickles, one after the other, of a file of so many bytes."""
        self._file = io.BytesIO(content)
        self._parts_left = self._elements_left = size
        self._storages: dict[str, _Storage] = {}
        self._calls = _CALLS | _declared_safe()
        self.has_namespace = False

    def follow(self) -> Any:
        """Follow the next pickle to its end; what stands for its content."""
        stack: list[Any] = []
        below: list[list[Any]] = []  # stacks put aside by marks
        memo: dict[int, Any] = {}
        argument: Any
        for number, (opcode, argument, _) in enumerate(pickletools.genops(self._file), start=1):
            limits.check("MAX_PICKLE_INSTRUCTIONS", number, "its pickle")
            items: list[Any] = []
            if opcode.stack_before[-1:] == [pickletools.stackslice]:
                items, stack = stack, below.pop()
            match opcode.name:
                case name if name in _ARGUMENTS:
                    stack.append(argument)
                case name if name in _CONSTANTS:
                    stack.append(_CONSTANTS[name])
                case "PROTO":
                    pass
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "MARK":
                    below.append(stack)
                    stack = []
                case "TUPLE":
                    stack.append(tuple(items))
                case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                    count = int(name[-1])
                    stack[-count:] = [tuple(stack[-count:])]
                case "EMPTY_LIST" | "EMPTY_DICT":
                    stack.append([])
                case "APPEND":
                    item = stack.pop()
                    stack[-1].append(item)
                case "APPENDS":
                    stack[-1].extend(items)
                case "SETITEM":
                    items = [stack.pop(-2), stack.pop()]
                    self.count(items[0], hashed=True)
                    stack[-1].extend(items)
                case "SETITEMS":
                    self.count(items[::2], hashed=True)
                    stack[-1].extend(items)
                case "GLOBAL":
                    stack.append(_Global(argument.replace(" ", ".").replace("__builtin__.", "builtins.")))
                case "REDUCE" | "NEWOBJ":
                    arguments = stack.pop()
                    stack.append(self._called(stack.pop(), arguments))
                case "BUILD":
                    state = stack.pop()
                    self.count(state)
                    if isinstance(stack[-1], _Namespace) and not _are_plain_attributes(state):
                        raise pickle.UnpicklingError(f"GLOBAL {_NAMESPACE} with other values than plain ones")
                case "BINPERSID":
                    stack.append(self._storage(stack.pop()))
                case "STOP":
                    return stack.pop()
                case name:
                    raise pickle.UnpicklingError(f"expected an instruction that torch.load knows, got {name}")
        raise EOFError

    def count(self, value: Any, *, hashed: bool = False) -> None:
        """Take the parts of a value from those that are left, of which one that contains itself has too many.

        With ``hashed`` they are, or hold, keys, of which many may not have one hash.
        """
        self._parts_left -= 1
        if self._parts_left < 0:
            raise ValueError("its keys and arguments have more parts than it has bytes")
        if hashed and type(value) is int and abs(value) >= _MANY_OF_ONE_HASH:
            raise ValueError(f"a key of {abs(value).bit_length()} bits")
        if type(value) in (tuple, list):
            for part in value:
                self.count(part, hashed=hashed)

    def _called(self, function: object, arguments: Any) -> Any:
        """Stand-in for the result of a call."""
        if not isinstance(function, _Global):
            raise pickle.UnpicklingError("expected the name of a function")
        self.count(arguments, hashed=function.name in _WITH_KEYS)
        if function.name == _WITH_ATTRIBUTES:  # the function, a class, the function's arguments, attributes
            return self._called(arguments[0], arguments[2])
        if function.name == _NAMESPACE and function.name not in self._calls and arguments == ():
            self.has_namespace = True
            return _Namespace()
        if function.name not in self._calls:
            raise pickle.UnpicklingError(f"GLOBAL {function.name}")
        if function.name == _ENCODED and arguments[1:] != ("latin1",):  # others return more than they take
            raise pickle.UnpicklingError(f"GLOBAL {function.name}")
        if function.name == _ENCODED:
            self._parts_left -= len(arguments[0])  # which is copied
        if function.name in _REBUILT:
            _check_reach(*arguments[:4])
        if function.name == _SIZE:
            return tuple(arguments[0])
        return list(arguments) if function.name.startswith("collections.") else object()

    def _storage(self, identity: Any) -> _Storage:
        self.count(identity)
        _, _, key, _, elements = identity[:5]
        if type(key) is not str or type(elements) is not int or elements < 0:
            raise ValueError("expected a storage with a key and a number of elements")
        if key not in self._storages:
            self._storages[key] = _Storage(elements)
            self._elements_left -= elements
            if self._elements_left < 0:
                raise ValueError("its storages have more elements than it has bytes")
        return self._storages[key]


def _check_reach(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
    """See that a tensor lies inside its storage, which in the older format would grow for it, without any values."""
    end = offset + 1 + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if all(size) and end > storage.elements:
        raise ValueError(f"a tensor ends at element {end} of {storage.elements}")


def _are_plain_attributes(state: object) -> bool:
    """Whether keys, and values, alternating, are names and plain."""
    return type(state) is list and all(type(key) is str for key in state[::2]) and _is_plain(state)


def _is_plain(value: object) -> bool:
    """Whether a value is a text, a number, a constant, or a collection of these."""
    if type(value) in (tuple, list):
        return all(map(_is_plain, value))  # type: ignore[call-overload]
    return value is None or type(value) in (str, int, float, bool)


def _declared_safe() -> set[str]:
    """The names that whoever runs this has given to `torch.serialization.add_safe_globals`."""
    with _TOLD:  # not what another thread has told torch.load of
        declared = torch.serialization.get_safe_globals()
    return {one[1] if isinstance(one, tuple) else f"{one.__module__}.{one.__qualname__}" for one in declared}
