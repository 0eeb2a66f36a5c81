"""Small pickles that would keep `torch.load` busy for years, or crash it: `python -m tests.robustness.hostile_pickles`.

A process of its own, since nothing but its end stops a hash that is being computed. It prints one line of JSON for each
file: its name, its size, and what became of it.
"""

import json
import pickle
import struct
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from torch.serialization import MAGIC_NUMBER, PROTOCOL_VERSION

from mobilevit_fast.checkpoints import read_checkpoint
from tests.robustness.mutations import bound_memory, problem_of

_VALUES = bytes(16)
_KEYS = pickle.dumps(["0"], protocol=2)


def text(value: str) -> bytes:
    """The instruction for a text."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    """The instruction for a whole number of any size."""
    return pickle.dumps(value, protocol=2)[2:-1]


def imported(module: str, name: str) -> bytes:
    """The instruction for a function or class."""
    return f"c{module}\n{name}\n".encode()


def doubled(first: bytes = b")", times: int = 40) -> bytes:
    """A tuple of twice the same tuple, so many times: 2^times parts."""
    return first + b"q\x01" + b"h\x01\x86q\x01" * times


def called(module: str, name: str, *arguments: bytes) -> bytes:
    """What a function makes of its arguments."""
    return imported(module, name) + b"(" + b"".join(arguments) + b"tR"


def entry(value: bytes) -> bytes:
    """A dictionary of one value."""
    return b"}" + text("x") + value + b"s"


def storage(key: bytes = text("0"), elements: int = 4, rest: bytes = b"") -> bytes:
    """Numbers of an archive, or with `rest` those of the older format."""
    return (
        b"(" + text("storage") + imported("torch", "FloatStorage") + key + text("cpu") + number(elements) + rest + b"tQ"
    )


def tensor(size: list[int], stride: list[int], values: bytes = storage()) -> bytes:
    """A tensor of some numbers."""
    shape = [b"(" + b"".join(map(number, one)) + b"t" for one in (size, stride)]
    return called("torch._utils", "_rebuild_tensor_v2", values, number(0), *shape, b"\x89", b"N")


def many_hex_digits(times: int = 32) -> bytes:
    """8 GB and more of digits: every digit is written as two, so many times."""
    digits = b"q\x02" + text("abcdefgh") + text("latin1") + b"\x86Rq\x01"
    return imported("_codecs", "encode") + digits + (b"h\x02h\x01" + text("hex") + b"\x86Rq\x01") * times


def long_text_as_bytes(length: int = 10**6, times: int = 4000) -> bytes:
    """A list of as many copies of a text."""
    first = imported("_codecs", "encode") + b"q\x01" + text("a" * length) + b"q\x02" + text("latin1") + b"q\x03\x86R"
    return b"](" + first + b"h\x01h\x02h\x03\x86R" * (times - 1) + b"e"


DICTIONARY = imported("collections", "OrderedDict") + b")R"
WIDE = tensor([1, 2**33], [0, 0])
ARCHIVES = {
    "a key": b"}" + doubled() + b"Ns",
    "keys": b"}(" + doubled() + b"Nu",
    "an element of a set": entry(imported("__builtin__", "set") + b"]" + doubled() + b"a\x85R"),
    "a key in a list": entry(imported("collections", "OrderedDict") + b"]]" + doubled() + b"aNaa\x85R"),
    "an attribute's name": entry(DICTIONARY + b"]]" + doubled() + b"aNaab"),
    "a storage's key": entry(storage(key=doubled())),
    "a function": entry(doubled() + b")R"),
    "a class": entry(doubled() + b")\x81"),
    "attributes": entry(
        called(
            "torch._tensor",
            "_rebuild_from_type_v2",
            imported("torch", "Size"),
            b"N",
            b"))\x85",
            b"(NN",
            doubled(),
            b"t",
        )
    ),
    "numbers of a tensor": entry(called("torch", "Tensor", doubled(b"K\x01", 33))),
    "numbers of a storage": entry(called("torch", "FloatTensor", doubled(b"K\x01", 33))),
    "digits": entry(many_hex_digits()),
    "bytes": entry(called("__builtin__", "bytearray", number(10**10))),
    "another type": entry(
        called(
            *("torch._utils", "_rebuild_device_tensor_from_cpu_tensor", WIDE),
            *(imported("torch", "float64"), text("cpu"), b"\x89"),
        )
    ),
    "a key in half a million tuples": b"})" + b"\x85" * 500_000 + b"Ns",
    "a long text as bytes": entry(long_text_as_bytes()),
    "numbers of one hash": b"}(" + b"".join(number(i * sys.hash_info.modulus) + b"N" for i in range(40_000)) + b"u",
    "a set of numbers of one hash": entry(
        imported("__builtin__", "set")
        + b"]("
        + b"".join(number(i * sys.hash_info.modulus) for i in range(40_000))
        + b"e\x85R"
    ),
    "two million instructions": entry(b"](" + b"N" * 2_000_000 + b"e"),
}
LARGE = {
    "a key in half a million tuples",
    "a long text as bytes",
    "numbers of one hash",
    "a set of numbers of one hash",
    "two million instructions",
}
"""Files that are not small; they ask for far more than they are."""
OLDER = {
    "a version": {"version": b"\x80\x02" + doubled() + b"."},
    "storages to read": {"keys": b"\x80\x02]" + doubled() + b"a."},
    "a large storage": {"content": entry(tensor([2], [1], storage(elements=10**9, rest=b"N")))},
    "a tensor beyond its storage": {"content": entry(tensor([1000], [1], storage(rest=b"N")))},
}


def write_archive(path: Path, content: bytes) -> None:
    """A file as torch.save writes it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + content + b".")
        archive.writestr("a/data/0", _VALUES)
        archive.writestr("a/version", b"3\n")


def write_older(path: Path, content: bytes = b"}", version: bytes | None = None, keys: bytes = _KEYS) -> None:
    """A file as torch.save wrote it before it made archives."""
    header = [pickle.dumps(one, protocol=2) for one in (MAGIC_NUMBER, PROTOCOL_VERSION, {})]
    header[1] = version or header[1]
    path.write_bytes(b"".join(header) + b"\x80\x02" + content + b"." + keys + struct.pack("<q", 4) + _VALUES)


def main() -> None:
    """Read all of them."""
    with tempfile.TemporaryDirectory() as folder:
        bound_memory()
        path = Path(folder, "a.pth")
        for name in (*ARCHIVES, *OLDER):
            if name in ARCHIVES:
                write_archive(path, ARCHIVES[name])
            else:
                write_older(path, **OLDER[name])
            print(json.dumps(name), file=sys.stderr, flush=True)  # the last line is the one that has no end
            start = time.process_time()
            outcome = problem_of(lambda: read_checkpoint(path))
            print(json.dumps([name, path.stat().st_size, outcome, time.process_time() - start]), flush=True)


if __name__ == "__main__":
    main()
