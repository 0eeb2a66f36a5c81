"""ONNX files of the models, in ONNX Runtime against PyTorch."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import onnxruntime
import pytest
import torch

import mobilevit_fast as mvf
from mobilevit_fast import export
from mobilevit_fast.export import ExportError, OnnxExport
from testing.pairs import abridged, give_real_signal, images, shortened, tiny_config
from testing.paths import REPOSITORY
from testing.tolerance import assert_within_twice, rms_error


def classifier(seed: int = 0) -> mvf.MobileViTForImageClassification:
    model = mvf.MobileViTForImageClassification(tiny_config(image_size=64)).eval()
    give_real_signal(model, seed)
    return abridged(model)


def segmenter() -> mvf.MobileViTForSemanticSegmentation:
    model = mvf.MobileViTForSemanticSegmentation(tiny_config(image_size=[50, 33], output_stride=16)).eval()
    give_real_signal(model)
    return shortened(model)


def plainly(model: Any, dtype: torch.dtype, pixel_values: torch.Tensor) -> torch.Tensor:
    """The logits of plain PyTorch in that type and evaluation mode."""
    plain = mvf.restore(copy.deepcopy(model)).to(dtype).eval()
    with torch.inference_mode():
        return plain(pixel_values.to(dtype), return_dict=False)[0]


def session_of(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def classification(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, OnnxExport]:
    """A model in training mode whose configuration asks for more outputs, and its file."""
    model = classifier().train()
    model.config.output_hidden_states, model.config.return_dict = True, False
    return model, mvf.export_onnx(model, tmp_path_factory.mktemp("classification") / "model.onnx")


@pytest.fixture(scope="module")
def segmentation(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, OnnxExport]:
    """An accelerated model in half precision with images of no whole patches, and its file."""
    model = mvf.accelerate(segmenter().bfloat16())
    return model, mvf.export_onnx(model, tmp_path_factory.mktemp("segmentation") / "model.onnx", opset=18)


@pytest.fixture(params=["classification", "segmentation"])
def exported(request: pytest.FixtureRequest) -> tuple[Any, OnnxExport]:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_onnxruntime_computes_the_model(exported: tuple[Any, OnnxExport], batch: int) -> None:
    model, result = exported
    pixel_values = images(batch, *result.input_shape[2:], seed=batch)
    (logits,) = session_of(result.path).run(None, {"pixel_values": pixel_values.numpy()})
    exact = plainly(model, torch.float64, pixel_values)
    assert exact.abs().max() > 1e-2
    # Another library, which sums in another order: twice PyTorch's error is not its promise.
    plain = plainly(model, torch.float32, pixel_values)
    assert_within_twice(torch.from_numpy(logits), plain, exact, factor=4, measure=rms_error)


def test_what_the_file_says(exported: tuple[Any, OnnxExport]) -> None:
    model, result = exported
    height, width = result.input_shape[2:]
    assert (height, width) == ((64, 64) if isinstance(model.config.image_size, int) else (50, 33))
    assert result.input_shape[:2] == ("batch", 3)
    assert result.output_shape == (("batch", 5) if height == 64 else ("batch", 5, 4, 3))
    assert result.opset == (20 if height == 64 else 18)
    assert result.size == result.path.stat().st_size
    assert result.error is not None
    assert result.error < 1e-5
    session = session_of(result.path)
    (pixel_values,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (pixel_values.name, tuple(pixel_values.shape)) == ("pixel_values", result.input_shape)
    assert (logits.name, tuple(logits.shape)) == ("logits", result.output_shape)
    assert pixel_values.type == logits.type == "tensor(float)"
    with pytest.raises(Exception, match="invalid dimensions"):
        session.run(None, {"pixel_values": images(1, 32, 32).numpy()})


def test_one_file_without_traces_of_this_machine(exported: tuple[Any, OnnxExport]) -> None:
    model, result = exported
    assert [path.name for path in result.path.parent.iterdir()] == ["model.onnx"]
    content = result.path.read_bytes()
    for words in (str(REPOSITORY), "site-packages", ".py"):
        assert words.encode() not in content
    weights = {one.name: one for one in onnx.load(result.path).graph.initializer}
    assert "mobilevit.conv_stem.convolution.weight" in weights
    assert all(one.data_location == onnx.TensorProto.DEFAULT for one in weights.values())
    assert result.size < 4 * sum(tensor.numel() for tensor in model.state_dict().values()) + 150_000


def test_the_model_stays_as_it_was(exported: tuple[Any, OnnxExport]) -> None:
    model, _ = exported
    if isinstance(model, mvf.MobileViTForImageClassification):
        assert model.training
        assert model.config.output_hidden_states
        assert not model.config.return_dict
    else:
        assert all(region.fused for region in mvf.report(model))
        assert model.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (ValueError, "image_size", {"image_size": 0}),
        (ValueError, r"\(64, 64, 3\)", {"image_size": (64, 64, 3)}),
        (ValueError, "got True", {"image_size": True}),
        (ValueError, "got 0", {"batch": 0}),
        (ValueError, "'dynamic' or a positive number, got 'any'", {"batch": "any"}),
        (ValueError, "expected opset 18 or newer, got 17", {"opset": 17}),
    ],
)
def test_bad_arguments(tmp_path: Path, error: type[Exception], words: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(error, match=f"^export_onnx: .*{words}"):
        mvf.export_onnx(classifier(), tmp_path / "model.onnx", **arguments)
    assert not list(tmp_path.iterdir())


def test_other_models(tmp_path: Path) -> None:
    for model, name in ((mvf.MobileViTModel(tiny_config()), "MobileViTModel"), (torch.nn.Linear(1, 1), "Linear")):
        with pytest.raises(TypeError, match=rf"expected a MobileViTForImageClassification or .*{name}$"):
            mvf.export_onnx(model, tmp_path / "model.onnx")  # type: ignore[arg-type]


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none" / "model.onnx"):
        with pytest.raises(FileNotFoundError, match="expected a file in a folder that exists"):
            mvf.export_onnx(classifier(), path)


def test_weights_beyond_a_single_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_LARGEST_FILE", 1000)
    with pytest.raises(ValueError, match="less than 2 GB"):
        mvf.export_onnx(classifier(), tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("absent", "words"),
    [(["onnx"], "found no onnx;"), (["onnx", "onnxscript"], "found no onnx and no onnxscript; pip install onnx onnxs")],
)
def test_missing_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: list[str], words: str) -> None:
    for name in absent:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=words):
        mvf.export_onnx(classifier(), tmp_path / "model.onnx")


Exporter = Callable[[onnx.ModelProto], None]


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch, classification: tuple[Any, OnnxExport]) -> Exporter:
    """Makes PyTorch's exporter give a model as it is; `classification` first, which the real one has to make."""

    def give(proto: onnx.ModelProto) -> None:
        monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: SimpleNamespace(model_proto=proto))

    give(onnx.load(classification[1].path))
    return give


def assert_nothing_written(folder: Path, words: str, model: Any, **arguments: Any) -> None:
    path = folder / "model.onnx"
    path.write_bytes(b"earlier")
    with pytest.raises(ExportError, match=words) as raised:
        mvf.export_onnx(model, path, **arguments)
    assert len(str(raised.value).splitlines()) == 1
    assert [(one.name, one.read_bytes()) for one in folder.iterdir()] == [("model.onnx", b"earlier")]


def test_other_results_are_refused(tmp_path: Path, exporter: Exporter) -> None:
    assert_nothing_written(tmp_path, "ONNX Runtime and PyTorch disagree on 1 random images", classifier(seed=1))
    broken = classifier()
    broken.classifier.bias.data[0] = float("nan")
    assert_nothing_written(tmp_path, "relative error of the logits nan", broken)


def test_invalid_graphs_are_refused(tmp_path: Path, exporter: Exporter, classification: tuple[Any, OnnxExport]) -> None:
    proto = onnx.load(classification[1].path)
    proto.graph.node[0].op_type = "Convolute"
    exporter(proto)
    assert_nothing_written(tmp_path, "ONNX's checker refused the result", classifier())


def test_a_batch_that_became_constant_is_found(
    tmp_path: Path, exporter: Exporter, classification: tuple[Any, OnnxExport]
) -> None:
    proto = onnx.load(classification[1].path)
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    exporter(proto)
    assert_nothing_written(tmp_path, "ONNX Runtime cannot run the result on 1 images", classifier())


def test_another_opset_is_refused(tmp_path: Path, exporter: Exporter) -> None:
    assert_nothing_written(tmp_path, "expected operators of opset 19, PyTorch made some of 20", classifier(), opset=19)


def test_errors_of_the_exporter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch.onnx.errors.OnnxExporterError("\nNo decomposition of aten::something\n\nand much more")

    monkeypatch.setattr(torch.onnx, "export", fail)
    assert_nothing_written(tmp_path, "exporter failed: No decomposition of aten::something$", classifier())


def test_without_onnxruntime_nothing_is_compared(
    tmp_path: Path, exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = mvf.export_onnx(classifier(), tmp_path / "model.onnx")
    assert result.error is None
    onnx.checker.check_model(result.path)


def test_the_global_generator_is_left_alone(tmp_path: Path, exporter: Exporter) -> None:
    model, state = classifier(), torch.random.get_rng_state()
    mvf.export_onnx(model, tmp_path / "model.onnx")
    assert torch.equal(torch.random.get_rng_state(), state)
