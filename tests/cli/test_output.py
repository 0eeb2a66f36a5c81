"""Output of the command line: no control codes, what is logged as notes, an error where nothing can be written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mobilevit_fast.checkpoints import load_model, write_checkpoint
from tests.cli.test_errors import run, strict_json

ODD_NAMES = ["\x1b[31mred\x07.png", "line\nbreak.png", "b\u202eack.png"]


def test_control_codes_in_what_is_logged(classifier: Path, tmp_path: Path) -> None:
    """In a process of its own, where no handler of pytest's takes what is logged."""
    folder = tmp_path / "\x1b[2Jmixed"
    model = load_model(classifier)
    write_checkpoint(model, folder)
    tensors = {name: t.half() if t.ndim > 1 else t.clone() for name, t in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    command = [sys.executable, "-m", "mobilevit_fast.cli", "convert", str(folder), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert "\x1b" not in done.stderr
    assert any(line.startswith("warning: ") and "were cast to it" in line for line in done.stderr.splitlines())
    assert load_model(tmp_path / "out").dtype == torch.float32


def test_numbers_beyond_half_precision_reach_the_command_line(classifier: Path, tmp_path: Path) -> None:
    """The type asked for is cast to from the file, not from a narrower copy."""
    model = load_model(classifier)
    tensors = {name: t.half() if t.ndim > 1 else t.clone() for name, t in model.state_dict().items()}
    name = next(name for name in tensors if name.endswith("running_var"))
    tensors[name].fill_(1e5)
    write_checkpoint(model, tmp_path / "mixed")
    save_file(tensors, tmp_path / "mixed" / "model.safetensors")
    assert run("convert", tmp_path / "mixed", tmp_path / "out").exit_code == 0
    assert torch.equal(load_model(tmp_path / "out").state_dict()[name], tensors[name])


def test_control_codes_in_names(classifier: Path, tmp_path: Path) -> None:
    names = [*ODD_NAMES, os.fsdecode(b"no \xff text.png")]
    for name in names:
        Image.new("RGB", (70, 70)).save(tmp_path / name)
    (tmp_path / "\x1b[2Jbroken.png").write_bytes(b"no image")
    result = run("classify", tmp_path, tmp_path / "\x1b[2Jnone.png", "--model", classifier)
    assert result.exit_code == 1
    for shown in ("\\x1b[31mred\\x07.png", "line\\nbreak.png", "b\\u202eack.png", "no \\xff text.png"):
        assert shown in result.stdout.replace("\n", "")
    assert "\\x1b[2Jbroken.png" in result.stderr
    assert "\\x1b[2Jnone.png" in result.stderr
    for text in (result.stdout, result.stderr):
        assert not any(code in text for code in "\x1b\x07\u202e\udcff")
    values = strict_json(run("classify", tmp_path, "--model", classifier, "--json").stdout)
    assert {Path(image["path"]).name for image in values["images"]} == {*names, "\x1b[2Jbroken.png"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
@pytest.mark.parametrize("redirected", ["> /dev/full", ">&-"])
def test_an_output_that_cannot_be_written_to(classifier: Path, tmp_path: Path, redirected: str) -> None:
    Image.new("RGB", (70, 70)).save(tmp_path / "a.png")
    command = (
        f"{sys.executable} -m mobilevit_fast.cli classify {tmp_path}/a.png --model {classifier} --json {redirected}"
    )
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert sum(line.startswith("error: ") for line in done.stderr.splitlines()) == 1
