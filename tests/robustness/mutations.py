"""Damaged files of every kind a user may hand over, and what becomes of them.

`python -m tests.robustness.mutations [CASES [KIND]]`: a process of its own, so that its memory can be bounded and a
crash be seen. It prints one JSON object: for each kind how many cases were answered and refused, and what is wrong with
any that was neither.
"""

import csv
import io
import json
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from typer.testing import CliRunner

from mobilevit_fast.checkpoints import build_model, read_checkpoint, write_checkpoint
from mobilevit_fast.checkpoints.io import load_weights
from mobilevit_fast.cli import app
from mobilevit_fast.cli.labels import Labels
from mobilevit_fast.cli.photos import collect
from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.images import MobileViTImageProcessor
from mobilevit_fast.models import MobileViTForImageClassification

CASES = 500
SECONDS = 10
"""Of the processor, for a case; what else the machine does meanwhile is no fault of it."""
DEADLINE = 300
"""Seconds of the clock, for a case that waits and computes nothing."""
MEMORY = 2 << 30
THROUGH_THE_COMMAND = 50
"""Every so-many-th case goes through the command line as well."""

_NAMES = {0: "cat", 1: "20", 2: "[red]fox[/red]", 3: "1"}
_VALUES: list[Any] = [
    *(None, True, False, "", "a", "20", [], {}, [[]], {"a": {}}, [1, 2], "\ud800", "\x1b[31m\n", "x" * 5000),
    *(0, -1, 1, 2, 3, 7, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64, 10**30),
    *(10**400, -(10**400), 0.0, -0.0, 0.5, 1e-320, 1e-30, 1e30, 1e308, float("inf"), float("-inf"), float("nan")),
    *([2**31] * 2, [2**40] * 3, [2**20] * 3, [2**15] * 7, [0, 0], [1.5, 2], ["a", "b"], [None] * 3),
    *({"height": 2**31, "width": 1}, {"shortest_edge": 10**9}, {"height": 3, "width": 2000}, {str(2**70): "a"}),
]
_KEYS = ["self", "__class__", "a\x00b", "dtype", "num_labels", "x" * 3000]
_CELLS = ["", "1", "20", "cat", "a.png", "image", "9" * 5000, "x" * 200_000, "\0", "\x1b[2J", "\u0663", " 1"]


class Folder(NamedTuple):
    """Where the files of a case lie, and what they are when whole."""

    path: Path
    whole: dict[str, bytes]
    photo: Path
    model: MobileViTForImageClassification

    def restore(self) -> None:
        """Make every file whole again."""
        for name, content in self.whole.items():
            (self.path / name).write_bytes(content)


def make_folder(path: Path) -> Folder:
    """A small checkpoint in both formats with settings, labels and two photos."""
    config = MobileViTConfig(
        hidden_sizes=[8, 12, 16], neck_hidden_sizes=[8, 8, 8, 8, 8, 8, 16], image_size=64, id2label=_NAMES
    )
    model = MobileViTForImageClassification(config).eval()
    write_checkpoint(model, path, processor=MobileViTImageProcessor(size=40, crop_size=32))
    torch.save({"state_dict": model.state_dict(), "epoch": 1}, path / "model.pth")
    torch.save(model.state_dict(), path / "legacy.pth", _use_new_zipfile_serialization=False)
    (path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (48, 60, 3), np.uint8)
    for name in ("a.png", "b.png"):
        Image.fromarray(pixels).save(path / "photos" / name)
    (path / "labels.csv").write_text("image,label\na.png,cat\nb.png,20\n")
    whole = {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}
    return Folder(path, whole, path / "photos" / "a.png", model)


def damaged(content: bytes, chance: random.Random, upto: int | None = None) -> bytes:
    """Bytes changed, taken out, put in, repeated or cut off, up to a position."""
    data = bytearray(content)
    end = min(len(data), upto or len(data))
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        at, length = chance.randrange(max(end, 1)), chance.choice([1, 1, 4, 16, 200])
        action = chance.randrange(6)
        if action == 0:
            data[at : at + length] = chance.randbytes(length)
        elif action == 1:
            data[at : at + 1] = bytes([chance.choice([0, 1, 34, 44, 48, 57, 91, 93, 123, 125, 128, 255])])
        elif action == 2:
            del data[at : at + length]
        elif action == 3:
            data[at:at] = data[at : at + length]
        elif action == 4:
            data[at:at] = chance.randbytes(length)
        elif chance.random() < 0.3:
            del data[at:]
        end = min(end, len(data))
    return bytes(data)


def changed_json(content: bytes, chance: random.Random) -> bytes:
    """Some values of a JSON object replaced, taken out or added, or its bytes damaged."""
    action = chance.random()
    if action < 0.25:
        return damaged(content, chance)
    if action < 0.28:
        depth = chance.choice([50, 70, 900, 100_000])
        return b'{"a": ' + b"[" * depth + b"]" * depth + b"}"
    values = json.loads(content)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        _change(values, chance)
    return json.dumps(values).encode("utf-8", "surrogatepass")


def _change(values: Any, chance: random.Random) -> None:
    """One change somewhere inside an object or a list."""
    if not values:
        return
    key = chance.choice(list(values)) if isinstance(values, dict) else chance.randrange(len(values))
    if isinstance(values[key], (dict, list)) and values[key] and chance.random() < 0.6:
        _change(values[key], chance)
    elif chance.random() < 0.1:
        del values[key]
    elif chance.random() < 0.1 and isinstance(values, dict):
        values[chance.choice(_KEYS)] = chance.choice(_VALUES)
    else:
        values[key] = chance.choice(_VALUES)


def changed_safetensors(content: bytes, chance: random.Random) -> bytes:
    """The header changed as JSON or as bytes, its length, or the numbers."""
    length = int.from_bytes(content[:8], "little")
    action = chance.random()
    if action < 0.4:
        header = json.loads(content[8 : 8 + length])
        for _ in range(chance.choice([1, 1, 3])):
            _change(header if chance.random() < 0.2 else header[chance.choice(list(header))], chance)
        text = json.dumps(header).encode("utf-8", "surrogatepass")
        return struct.pack("<Q", len(text)) + text + content[8 + length :]
    if action < 0.5:
        return struct.pack("<Q", chance.choice([0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1])) + content[8:]
    return damaged(content, chance, upto=chance.choice([8, 8 + length, len(content)]))


def changed_pickle(whole: dict[str, bytes], chance: random.Random) -> bytes:
    """A pickle of PyTorch damaged as a whole, or inside an archive that is whole."""
    action = chance.random()
    if action < 0.25:
        return damaged(whole["model.pth"], chance)
    if action < 0.5:
        return damaged(whole["legacy.pth"], chance, upto=chance.choice([100, 60_000]))
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole["model.pth"])) as source, zipfile.ZipFile(target, "w") as archive:
        for entry in source.infolist():
            data = source.read(entry)
            archive.writestr(entry.filename, damaged(data, chance) if entry.filename.endswith("data.pkl") else data)
    return target.getvalue()


def changed_table(content: bytes, chance: random.Random) -> bytes:
    """A table of labels with other cells, or damaged."""
    if chance.random() < 0.4:
        return damaged(content, chance)
    rows = list(csv.reader(io.StringIO(content.decode())))
    for _ in range(chance.choice([1, 2, 4])):
        row = chance.choice(rows)
        cell = chance.choice(_CELLS)
        if chance.random() < 0.2:
            rows.append([*row])
        elif row and chance.random() < 0.8:
            row[chance.randrange(len(row))] = cell
        else:
            row.append(cell)
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def answer_config(folder: Folder) -> None:
    """Load with a damaged config.json."""
    model = build_model(read_checkpoint(folder.path))
    with torch.inference_mode():
        model(torch.zeros(1, model.config.num_channels, 32, 32))


def answer_weights(folder: Folder, name: str) -> None:
    """Load damaged weights."""
    checkpoint = read_checkpoint(folder.path / name)
    load_weights(folder.model, checkpoint.state_dict)
    with torch.inference_mode():
        folder.model(torch.zeros(1, 3, 32, 32))


def answer_processor(folder: Folder) -> None:
    """Prepare a photo with damaged settings."""
    MobileViTImageProcessor.from_pretrained(folder.path)(folder.photo)


def answer_labels(folder: Folder) -> None:
    """Read a damaged table."""
    photos, _ = collect([folder.photo.parent])
    labels = Labels(folder.path / "labels.csv", _NAMES, photos)
    for photo in photos:
        labels.of(photo)


KINDS: dict[str, tuple[Callable[[dict[str, bytes], random.Random], bytes], Callable[[Folder], None]]] = {
    "config.json": (lambda whole, chance: changed_json(whole["config.json"], chance), answer_config),
    "model.safetensors": (
        lambda whole, chance: changed_safetensors(whole["model.safetensors"], chance),
        lambda folder: answer_weights(folder, "model.safetensors"),
    ),
    "model.pth": (changed_pickle, lambda folder: answer_weights(folder, "model.pth")),
    "preprocessor_config.json": (
        lambda whole, chance: changed_json(whole["preprocessor_config.json"], chance),
        answer_processor,
    ),
    "labels.csv": (lambda whole, chance: changed_table(whole["labels.csv"], chance), answer_labels),
}


def problem_of(answer: Callable[[], None]) -> str | None:
    """ "answered", "refused", or what is wrong with how a case ended."""
    try:
        answer()
    except (ValueError, OSError) as error:
        text = str(error)
        return "refused" if text and "\n" not in text and len(text) < 1000 else f"no clear line: {text[:300]!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}; {traceback.format_exc(limit=-3)}"
    return "answered"


def problem_of_the_command(folder: Folder, name: str) -> str | None:
    """What is wrong with the answer of the command line, if anything is."""
    model = folder.path / name if name == "model.pth" else folder.path
    arguments = ["classify", str(folder.photo), "--json", "--no-accelerate", "--model", str(model)]
    result = CliRunner().invoke(app, [*arguments, "--labels", str(folder.path / "labels.csv")])
    if result.exit_code not in (0, 1) or "Traceback" in result.stderr:
        return f"exit status {result.exit_code}: {result.exception!r} {result.stderr[:500]}"
    if result.exit_code == 1 and "error: " not in result.stderr:
        return "no error on stderr"

    def constant(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    try:
        json.loads(result.stdout, parse_constant=constant)
    except ValueError as error:
        return f"no JSON: {error}"
    return None


def run(folder: Folder, name: str, cases: int) -> dict[str, Any]:
    """All cases of one kind."""
    change, answer = KINDS[name]
    found: dict[str, Any] = {"answered": 0, "refused": 0, "slowest": 0.0, "problems": []}
    for case in range(cases):
        folder.restore()
        (folder.path / name).write_bytes(change(folder.whole, random.Random(f"{name} {case}")))
        print(f"{name} {case}", file=sys.stderr)  # the last line is the case that crashed
        start = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(DEADLINE)
        outcome = problem_of(lambda: answer(folder))
        problem = problem_of_the_command(folder, name) if case % THROUGH_THE_COMMAND == 0 else None
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        found["slowest"] = max(found["slowest"], time.process_time() - start)
        if outcome in found and problem is None:
            found[outcome] += 1
        else:
            found["problems"].append(f"case {case}: {problem or outcome}")
    return found


def bound_memory() -> None:
    """Let this process have MEMORY bytes more than it has now; asking for more is a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)


class TookTooLong(BaseException):
    """Not an Exception, so that nobody takes it for an error of the file."""


def _too_long(number: int, frame: FrameType | None) -> None:
    limit = f"{SECONDS} s of the processor" if number == signal.SIGPROF else f"{DEADLINE} s"
    raise TookTooLong(f"more than {limit}")


def main(names: list[str], cases: int) -> None:
    """Run all cases of some kinds and print what came of them."""
    signal.signal(signal.SIGPROF, _too_long)
    signal.signal(signal.SIGALRM, _too_long)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as path:
        folder = make_folder(Path(path))
        answer_config(folder)
        bound_memory()
        print(json.dumps({name: run(folder, name, cases) for name in names}))


if __name__ == "__main__":
    main(sys.argv[2:] or list(KINDS), int(sys.argv[1]) if sys.argv[1:] else CASES)
