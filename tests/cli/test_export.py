"""`mobilevit-fast export`."""

import json
import sys
from pathlib import Path

import onnxruntime
import pytest
import torch

from mobilevit_fast import export
from mobilevit_fast.checkpoints import build_model, load_model, write_checkpoint
from mobilevit_fast.models import MobileViTModel
from testing.pairs import images, shortened, tiny_config
from tests.cli.test_other_commands import assert_refused, run

COMMANDS = sys.modules["mobilevit_fast.cli.app"]  # as an attribute of the package, `app` is what typer made of it


def test_export(segmenter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(COMMANDS, "build_model", lambda checkpoint: shortened(build_model(checkpoint)))
    out = tmp_path / "model.onnx"
    result = run("export", out, "--model", segmenter, "--image-size", 48, "--batch", 2, "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    values = json.loads(result.stdout)
    assert values["path"] == str(out)
    assert values["pixel_values"] == [2, 3, 48, 48]
    assert values["logits"] == [2, 3, 3, 3]
    assert 0 <= values["error"] < 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    pixel_values = images(2, 48, 48)
    (logits,) = onnxruntime.InferenceSession(out).run(None, {"pixel_values": pixel_values.numpy()})
    with torch.inference_mode():
        expected = shortened(load_model(segmenter))(pixel_values).logits
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_what_is_said(classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def export_onnx(model: torch.nn.Module, path: Path, **arguments: object) -> export.OnnxExport:
        calls.append(arguments)
        return export.OnnxExport(path, ("batch", 3, 64, 64), ("batch", 4), 20, 1_234_567, error)

    monkeypatch.setattr(COMMANDS, "export_onnx", export_onnx)
    error: float | None = 4e-7
    result = run("export", tmp_path / "model.onnx", "--model", classifier)
    assert result.exit_code == 0
    assert "model.safetensors -> " in result.stdout
    assert "(batch, 3, 64, 64) to logits (batch, 4), 1.2 MB, ONNX Runtime errs by 4.0e-07" in result.stdout
    assert calls == [{"image_size": None, "batch": "dynamic"}]
    error = None
    result = run("export", tmp_path / "model.onnx")  # the digits checkpoint
    assert result.exit_code == 0
    assert "digits" in result.stdout
    assert "pip install onnxruntime" in result.stderr


def test_export_refuses(classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "model.onnx"
    assert_refused(run("export", out, "--model", classifier, "--image-size", 0), 2, "--image-size", "got 0")
    assert_refused(run("export", out, "--model", classifier, "--batch", -1), 2, "--batch", "got -1")
    assert_refused(run("export", tmp_path / "model.pt", "--model", classifier), 2, "such as model.onnx", "model.pt")
    assert_refused(run("export", tmp_path / "none" / "model.onnx"), 2, "a folder that exists")
    assert_refused(run("export", out, "--model", tmp_path / "nothing"), 1, "nothing")
    write_checkpoint(MobileViTModel(tiny_config()), tmp_path / "backbone")
    assert_refused(run("export", out, "--model", tmp_path / "backbone"), 1, "expected a model with a head")
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert_refused(run("export", out, "--model", classifier), 1, "pip install onnx")
    assert not out.exists()


def test_export_does_not_replace_a_file_unasked(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export_onnx(*_: object, **__: object) -> None:
        raise export.ExportError("export_onnx: reached")

    monkeypatch.setattr(COMMANDS, "export_onnx", export_onnx)
    out = tmp_path / "model.onnx"
    out.write_bytes(b"earlier")
    assert_refused(run("export", out, "--model", classifier), 2, "model.onnx", "(--force)")
    assert_refused(run("export", out, "--model", classifier, "--force"), 1, "error: export_onnx: reached")
    assert out.read_bytes() == b"earlier"
