"""Whatever goes wrong, the command line says it in one line, answers what it can, and JSON stays JSON."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from mobilevit_fast.checkpoints import load_model, write_checkpoint
from mobilevit_fast.cli import app
from mobilevit_fast.cli.console import printable
from mobilevit_fast.engine import preprocessing
from mobilevit_fast.images import MobileViTImageProcessor
from mobilevit_fast.models import MobileViTForImageClassification
from testing.paths import REPOSITORY

COMMANDS = sys.modules["mobilevit_fast.cli.app"]  # as an attribute of the package, `app` is what typer made of it


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def strict_json(text: str) -> Any:
    """JSON as every reader takes it: NaN and Infinity are Python's own."""

    def constant(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=constant)


@pytest.mark.parametrize(
    "error", [KeyError("x"), RuntimeError("a\nb"), RecursionError(), MemoryError(), AssertionError()]
)
def test_errors_nobody_expected(
    classifier: Path, photos: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(COMMANDS, "load", fail)
    for options in ([], ["--json"]):
        result = run("classify", photos, "--model", classifier, *options)
        assert result.exit_code == 1
        assert isinstance(result.exception, SystemExit)
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")
        assert ("not enough memory" if isinstance(error, MemoryError) else type(error).__name__) in line
        assert (strict_json(result.stdout) == {"error": line.removeprefix("error: ")}) if options else not result.stdout
    result = run("--traceback", "classify", photos, "--model", classifier)
    assert result.exception is error


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["classify", "/no/such.png", "/none/either", "--json"], 1),
        (["classify", "{photos}", "--model", "/no/such/folder", "--json"], 1),
        (["classify", "{photos}", "--model", "{classifier}", "--dtype", "int8", "--json"], 2),
        (["classify", "{photos}", "--model", "{classifier}", "--top-k", "x", "--json"], 2),
        (["classify", "{photos}", "--model", "{classifier}", "--no-such-option", "--json"], 2),
        (["segment", "{photos}/none.jpg", "--model", "{classifier}", "--output", "/tmp/a.png", "--json"], 1),
        (["export", "/none/model.onnx", "--json"], 2),
        (["plan", "--model", "/no/such/folder", "--json"], 1),
        (["plan", "--model", "x" * 300, "--json"], 1),
        (["segment", "{photos}/a.jpg", "--model", "{classifier}", "--output", "{photos}/loop.png", "--json"], 1),
        (["--nope", "classify", "--json", "{photos}"], 2),
        (["--nope=--json", "classify", "--json", "{photos}"], 2),
        (["--json", "classify", "{photos}"], 2),
        (["--json"], 2),
        (["--set-limit", "classify", "--json", "{photos}"], 2),
        (["nope", "--json"], 2),
        (["classify", "--json"], 2),
        (["--traceback", "plan", "--model", "/no/such/folder", "--json"], 1),
    ],
)
def test_json_whatever_happens(classifier: Path, photos: Path, arguments: list[str], status: int) -> None:
    (photos / "loop.png").symlink_to("loop.png")
    result = run(*(one.format(photos=photos, classifier=classifier) for one in arguments))
    assert result.exit_code == status
    assert strict_json(result.stdout).keys() & {"error", "errors"}
    assert "Traceback" not in result.stderr
    assert "RuntimeError" not in result.stderr


def test_paths_without_images_are_listed(classifier: Path, photos: Path) -> None:
    values = strict_json(run("classify", "/no/such.png", "--model", classifier, "--json").stdout)
    problem = {"path": "/no/such.png", "error": "no such file or folder"}
    assert values["errors"] == [problem]
    assert (values["images"], values["summary"]["images"]) == ([], 0)
    result = run("classify", photos / "a.jpg", "/no/such.png", "--model", classifier, "--json")
    values = strict_json(result.stdout)
    assert result.exit_code == 1
    assert values["errors"] == [problem]
    assert len(values["images"]) == 1
    assert values["images"][0]["predictions"]


def test_paths_that_name_no_file_cost_no_answers(classifier: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").symlink_to("nowhere.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "folder.png").mkdir()
    problems = {
        tmp_path / ("x" * 300 + ".png"): "File name too long",
        tmp_path / ("y" * 200 + "/") / ("y/" * 3000): "File name too long",
        photos / "a.jpg" / "a.png": "no such file or folder",
        tmp_path / "broken.png": "no such file or folder",
        tmp_path / "loop.png": "Too many levels of symbolic links",
        tmp_path / "folder.png": "expected a folder with images (",
    }
    result = run("classify", *problems, photos / "a.jpg", "--model", classifier, "--json")
    assert result.exit_code == 1
    values = strict_json(result.stdout)
    assert [image["path"] for image in values["images"]] == [str(photos / "a.jpg")]
    assert values["images"][0]["predictions"]
    for (path, message), problem in zip(problems.items(), values["errors"], strict=True):
        assert problem["path"] == str(path)
        assert problem["error"].startswith(message)
    assert len(result.stderr.splitlines()) == len(problems)


def test_what_a_folder_holds_beside_images(
    classifier: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mixed"
    for name in ("dir.png", "closed"):
        (folder / name).mkdir(parents=True)
    (folder / "broken.png").symlink_to("nowhere.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "same").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")
    (folder / "good.png").symlink_to(photos / "b.png")
    scandir = os.scandir

    def closed(path: Path) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    result = run("classify", folder, "--model", classifier, "--json")
    assert result.exit_code == 1
    values = strict_json(result.stdout)
    images = {Path(image["path"]).name: bool(image["predictions"]) for image in values["images"]}
    assert images == {"broken.png": False, "good.png": True, "loop.png": False, "pipe.png": False}
    assert values["errors"] == [{"path": str(folder / "closed"), "error": "Permission denied"}]


def test_answers_that_are_no_numbers(classifier: Path, segmenter: Path, photos: Path, tmp_path: Path) -> None:
    for folder, output in ((classifier, tmp_path / "a"), (segmenter, tmp_path / "b")):
        model = load_model(folder)
        for parameter in model.parameters():
            torch.nn.init.constant_(parameter, float("nan"))
        write_checkpoint(model, output, processor=MobileViTImageProcessor.from_pretrained(folder))
    result = run("classify", photos / "a.jpg", photos / "b.png", "--model", tmp_path / "a", "--json")
    assert result.exit_code == 1
    values = strict_json(result.stdout)
    assert [image["error"] for image in values["images"]] == ["the model's answer is NaN or infinite"] * 2
    overlay = tmp_path / "overlay.png"
    result = run("segment", photos / "a.jpg", "--model", tmp_path / "b", "--output", overlay, "--json")
    assert result.exit_code == 1
    assert "the model's answer is NaN" in strict_json(result.stdout)["error"]
    assert not overlay.exists()


def failing_for_tall_images(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let the model fail for images of more than 80 rows."""
    forward = MobileViTForImageClassification.forward

    def fail(self: Any, pixel_values: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        if pixel_values.shape[-2] > 80:
            raise error
        return forward(self, pixel_values, *arguments, **options)

    monkeypatch.setattr(MobileViTForImageClassification, "forward", fail)


@pytest.mark.parametrize("error", [RuntimeError("x"), torch.OutOfMemoryError("x"), MemoryError(), KeyError(3)])
def test_the_answers_of_good_photos_are_kept(
    classifier: Path, photos: Path, tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    MobileViTImageProcessor(do_resize=False, do_center_crop=False).save_pretrained(tmp_path)
    failing_for_tall_images(monkeypatch, error)
    options = ["--model", classifier, "--processor", tmp_path, "--no-accelerate", "--json"]
    result = run("classify", photos, *options)
    assert result.exit_code == 1
    images = strict_json(result.stdout)["images"]
    assert [bool(image["predictions"]) for image in images] == [True, True, False, True, True, True]
    assert len(result.stderr.splitlines()) == 1
    assert "c.JPEG" in result.stderr


def test_photos_that_fail_only_together(classifier: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = MobileViTForImageClassification.forward

    def fail(self: Any, pixel_values: torch.Tensor) -> Any:
        if len(pixel_values) > 1:
            raise torch.OutOfMemoryError("too many")
        return forward(self, pixel_values)

    monkeypatch.setattr(MobileViTForImageClassification, "forward", fail)
    result = run("classify", photos, "--model", classifier, "--no-accelerate", "--json")
    assert result.exit_code == 0
    assert all(image["predictions"] for image in strict_json(result.stdout)["images"])


def test_preparation_that_fails_in_a_way_nobody_expected(
    classifier: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, broken = preprocessing.decode, (photos / "b.png").read_bytes()

    def fail(raw: bytes, *others: Any) -> Any:
        if raw == broken:
            raise UnboundLocalError("inside a decoder")
        return decode(raw, *others)

    monkeypatch.setattr(preprocessing, "decode", fail)
    result = run("classify", photos, "--model", classifier, "--json")
    assert result.exit_code == 1
    images = strict_json(result.stdout)["images"]
    assert [bool(image["predictions"]) for image in images] == [True, False, True, True, True, True]
    assert images[1]["error"] == "UnboundLocalError: inside a decoder"


@pytest.mark.parametrize("option", [["--traceback"], ["--set-limit", "MAX_PIXELS=3"]])
def test_an_option_of_all_commands_that_stands_behind_one(photos: Path, option: list[str]) -> None:
    result = run("classify", photos, *option)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "it stands before the command" in line


def test_an_interrupt_keeps_what_was_answered(classifier: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = MobileViTForImageClassification.forward
    third = MobileViTImageProcessor.from_pretrained(classifier)(photos / "c.JPEG")["pixel_values"]

    def interrupted(self: Any, pixel_values: torch.Tensor) -> Any:
        if torch.equal(pixel_values, third):
            raise KeyboardInterrupt
        return forward(self, pixel_values)

    monkeypatch.setattr(MobileViTForImageClassification, "forward", interrupted)
    options = ["--model", classifier, "--no-accelerate", "--batch-size", 1]
    result = run("classify", photos, *options, "--json")
    assert result.exit_code == 130
    assert result.stderr.splitlines() == ["error: interrupted after 2 of 6 images"]
    values = strict_json(result.stdout)
    assert [len(image["predictions"]) for image in values["images"]] == [1, 1]
    assert values["summary"]["interrupted"] is True


def test_an_image_of_other_channels_is_refused_by_the_model(classifier: Path, photos: Path, tmp_path: Path) -> None:
    grey = tmp_path / "grey.pgm"
    Image.new("L", (70, 70)).save(grey)
    model = load_model(classifier)
    four = MobileViTForImageClassification(type(model.config).from_dict(model.config.to_dict(), num_channels=4))
    write_checkpoint(four, tmp_path / "four", processor=MobileViTImageProcessor.from_pretrained(classifier))
    for option in ("--accelerate", "--no-accelerate"):
        result = run("classify", grey, "--model", tmp_path / "four", option)
        assert result.exit_code == 1
        assert "MobileViTModel: expected pixel_values of shape (batch, 4, height, width)" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_control_codes_in_names_of_classes(classifier: Path, segmenter: Path, photos: Path, tmp_path: Path) -> None:
    for folder, command in ((classifier, ["classify"]), (segmenter, ["segment", "--output", tmp_path / "o.png"])):
        model = load_model(folder)
        names = {index: f"\x1b[2J\n{index} \ud800" + "x" * 500 for index in range(model.config.num_labels)}
        model.config.id2label = names
        model.config.label2id = {name: index for index, name in names.items()}
        out = tmp_path / command[0]
        write_checkpoint(model, out, processor=MobileViTImageProcessor.from_pretrained(folder))
        result = run(*command, photos / "a.jpg", "--model", out)
        assert result.exit_code == 0, result.stderr
        assert "\x1b" not in result.stdout
        assert "\\x1b[2J" in result.stdout


def test_what_is_printable() -> None:
    assert printable("a photo é.jpg") == "a photo é.jpg"
    assert printable("\x00\x7f\x85\u2028\udc80\ud83d") == r"\x00\x7f\x85\u2028\x80\ud83d"


def test_a_picture_that_cannot_be_written_leaves_the_one_before(
    segmenter: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = tmp_path / "overlay.png"
    arguments = ["segment", photos / "a.jpg", "--model", segmenter, "--output", overlay]
    assert run(*arguments).exit_code == 0
    before = overlay.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr == "error: disk full\n"
    assert overlay.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["overlay.png"]


def test_the_home_folder_in_options(
    classifier: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run("convert", classifier, "~/out").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    assert run("classify", "~/photos", "--model", "~/out", "--processor", "~/out").exit_code == 0
    assert run("convert", "~/out", "~/out", "--force").exit_code == 2


SLOW_IMPORT = """
import sys, time
class Slow:
    def find_spec(self, name, *_):
        if name == {module!r}:
            print("importing", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow())
"""


@pytest.mark.parametrize("module", ["torch", "mobilevit_fast.cli.app"])
@pytest.mark.parametrize("command", ["module", "script"])
def test_an_interrupt_while_importing(tmp_path: Path, module: str, command: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_IMPORT.format(module=module))
    script = tmp_path / "mobilevit-fast"  # as pip writes it
    script.write_text(
        "import sys\nfrom mobilevit_fast.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
    )
    arguments = ["-m", "mobilevit_fast"] if command == "module" else [str(script)]
    process = subprocess.Popen(
        [sys.executable, *arguments, "plan"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert errors == ""
    assert process.returncode == -signal.SIGINT


def test_an_interrupt_is_an_exception_once_a_command_runs() -> None:
    code = (
        "import sys; sys.argv[0] = 'mobilevit-fast'\n"
        "import mobilevit_fast, signal\n"
        "assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL\n"
        "from mobilevit_fast.cli import app\n"
        "from typer.testing import CliRunner\n"
        "CliRunner().invoke(app, ['--help'])\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
