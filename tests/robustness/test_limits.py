"""What a file asks for is bounded by limits that have names and can be raised, before memory is taken."""

import json
import pickle
import re
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

import mobilevit_fast as mvf
from mobilevit_fast import limits
from mobilevit_fast.checkpoints import CheckpointError, load_model, read_checkpoint, write_checkpoint
from mobilevit_fast.cli import app
from mobilevit_fast.config.size import parameter_count
from mobilevit_fast.images import ImageError, MobileViTImageProcessor
from mobilevit_fast.models import MobileViTForImageClassification, MobileViTForSemanticSegmentation
from tests.checkpoints.helpers import assert_one_line, configs
from tests.checkpoints.test_writing import small_model


def wide_png(width: int, height: int = 1) -> bytes:
    """A grey picture of one colour, 82 bytes at 20,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    row = bytes(1 + (width + 7) // 8)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(row * height)) + chunk(b"IEND", b"")
    )


def test_an_image_that_would_grow_without_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = MobileViTImageProcessor(size={"shortest_edge": 288})
    picture = wide_png(20_000)
    assert len(picture) < 100
    message = r"image 0: expected an image of at most 2,097,152 \(mobilevit_fast.limits.MAX_PIXELS, .* got 288x5760000"
    with pytest.raises(ImageError, match=message):
        processor(picture)
    with pytest.raises(ImageError, match="got 1000000x3 from 288x9"):
        MobileViTImageProcessor(size={"height": 288, "width": 9}, crop_size=(1_000_000, 3))(wide_png(20))
    monkeypatch.setattr(mvf.limits, "MAX_PIXELS", 60_000)
    small = MobileViTImageProcessor(size={"shortest_edge": 30}, crop_size=32)
    with pytest.raises(ImageError, match="got 30x60000"):
        small(wide_png(2000))
    monkeypatch.setattr(mvf.limits, "MAX_PIXELS", 2_000_000)
    assert small(wide_png(2000)).pixel_values.shape == (1, 3, 32, 32)


def test_an_image_may_keep_its_size_whatever_the_limit_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_PIXELS", 100)
    image = np.zeros((3, 30, 40), np.uint8)
    assert MobileViTImageProcessor(do_resize=False, do_center_crop=False)(image).pixel_values.shape == (1, 3, 30, 40)
    assert MobileViTImageProcessor(size=20, crop_size=20)(image).pixel_values.shape == (1, 3, 20, 20)
    maps = MobileViTImageProcessor(size=20, crop_size=20)(image, np.zeros((30, 40), np.uint8))
    assert maps.labels.shape == (1, 20, 20)
    with pytest.raises(ImageError, match=r"segmentation map 0: expected an image of at most 100"):
        MobileViTImageProcessor(size=20, crop_size=20)(image, np.zeros((2, 3), np.uint8))


@pytest.mark.parametrize(
    "fields",
    [
        {"num_labels": 10**9},
        {"id2label": {str(index): "a" for index in range(131_073)}},
        {"patch_size": 2**31},
        {"patch_size": 2**63 - 1},
        {"patch_size": [2, 65]},
        {"atrous_rates": [6, 12, 1025]},
    ],
)
def test_fields_of_a_configuration(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected at most [0-9,]+ .mobilevit_fast.limits.MAX_") as error:
        mvf.MobileViTConfig(**fields)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "fields",
    [
        {"hidden_sizes": [2**20] * 3},
        {"neck_hidden_sizes": [2**15] * 7},
        {"mlp_ratio": 1e308},
        {"expand_ratio": 1e300},
        {"conv_kernel_size": 9999},
        {"aspp_out_channels": 2**16},
        {"num_channels": 2**30},
    ],
)
def test_models_beyond_the_limit_are_not_built(fields: dict[str, Any]) -> None:
    config = mvf.MobileViTConfig(**fields)
    for kind in (mvf.MobileViTModel, MobileViTForImageClassification, MobileViTForSemanticSegmentation):
        with pytest.raises(ValueError, match=r"parameters of a model .* expected at most 67,108,864"):
            kind(config)


@settings(max_examples=15)
@given(configs())
def test_the_number_of_parameters_is_known_beforehand(config: mvf.MobileViTConfig) -> None:
    with torch.device("meta"):
        classifier = MobileViTForImageClassification(config)
        head = MobileViTForSemanticSegmentation(config).segmentation_head
    assert parameter_count(config) == classifier.num_parameters() + sum(p.numel() for p in head.parameters())


NUMBERS = (10**400, -(10**400), 1e309, float("nan"), float("inf"))


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_beyond_all_bounds(number: float) -> None:
    for field in ("mlp_ratio", "layer_norm_eps", "hidden_dropout_prob", "image_size", "num_attention_heads"):
        with pytest.raises(ValueError, match=f"MobileViTConfig.{field}: expected"):
            mvf.MobileViTConfig(**{field: number})
    for setting in ({"rescale_factor": number}, {"image_mean": [0.5, number, 0.5]}, {"size": number}):
        with pytest.raises(ValueError, match=r"(rescale_factor|image_mean\[1\]|size): expected"):
            MobileViTImageProcessor(**setting)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": ' + "[" * 65 + "]" * 65 + "}", "MAX_JSON_DEPTH"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "MAX_JSON_DEPTH"),
        ('{"a": ' + "9" * 5000 + "}", "expected (a JSON file|JSON), got"),
        (" " * (limits.MAX_JSON_BYTES + 1), "MAX_JSON_BYTES"),
    ],
)
def test_deep_and_long_json(tmp_path: Path, name: str, text: str, message: str) -> None:
    write_checkpoint(small_model(), tmp_path)
    (tmp_path / name).write_text(text)
    loads: list[Callable[[Path], object]] = [MobileViTImageProcessor.from_pretrained]
    if name == "config.json":
        loads = [load_model, mvf.MobileViTConfig.from_pretrained]
    for load in loads:
        with pytest.raises(ValueError, match=message) as error:
            load(tmp_path)
        assert name in str(error.value)
        assert "\n" not in str(error.value)


def test_fields_that_no_model_can_use(tmp_path: Path) -> None:
    for field, value in (
        ("architectures", 5),
        ("architectures", [None]),
        ("id2label", {"0": [1]}),
        ("patch_size", "2"),
    ):
        with pytest.raises(ValueError, match=f"MobileViTConfig.{field}: expected"):
            mvf.MobileViTConfig(**{field: value})  # type: ignore[arg-type]
    assert mvf.MobileViTConfig(id2label={"0": 7, "1": 8}).id2label == {0: "7", 1: "8"}  # type: ignore[dict-item]
    (tmp_path / "config.json").write_text('{"self": 1}')
    assert mvf.MobileViTConfig.from_pretrained(tmp_path).to_dict()["self"] == 1


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"input_size": [3, "a", 64]}, "image_size: expected"),
        ({"input_size": [3, 10**400, 64]}, "image_size: expected"),
        ({"crop_pct": 0}, "crop_pct to be a share of the image, up to 1, got 0"),
        ({"crop_pct": None}, "crop_pct to be a share of the image, up to 1, got None"),
        ({"interpolation": "random"}, "interpolation to be one of nearest, .* got 'random'"),
        ({"mean": None, "std": "a"}, "image_std: expected a number, got 'a'"),
        ({"std": [0, 0, 0]}, "image_std: expected numbers other than 0"),
    ],
)
def test_what_timm_says_of_images(tmp_path: Path, described: dict[str, Any], message: str) -> None:
    write_checkpoint(small_model(), tmp_path, naming="timm")
    config = {"architecture": "mobilevit_xxs", "pretrained_cfg": described}
    (tmp_path / "config.json").write_text(json.dumps(config))
    Image.new("RGB", (40, 40)).save(tmp_path / "good.png")
    result = CliRunner().invoke(app, ["classify", str(tmp_path), "--model", str(tmp_path)])
    assert result.exit_code == 1
    assert re.search(f"error: .*{message}", result.stderr.splitlines()[-1])


def nested(count: int) -> dict[str, Any]:
    content: dict[str, Any] = {"x": torch.zeros(1)}
    for _ in range(count):
        content = {"state_dict": content}
    return content


def self_containing() -> dict[str, Any]:
    content: dict[str, Any] = {}
    content["state_dict"] = content
    return content


@pytest.mark.parametrize("content", [self_containing(), nested(100), {"model": OrderedDict(nested(9))}])
def test_dictionaries_in_dictionaries(tmp_path: Path, content: dict[str, Any]) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"MAX_WRAPPERS|damaged or foreign") as error:
        read_checkpoint(tmp_path / "a.pth")
    assert_one_line(error)


def test_keys_and_names_that_have_no_end(tmp_path: Path) -> None:
    key: tuple[Any, ...] = ()
    for _ in range(200):
        key = (key,)
    for content, message in (
        ({key: 1}, "got other values under tuple"),
        ({"module." * 100_000 + "x": torch.zeros(1)}, "not a MobileViT"),
        ({"x" * 100_000: 1}, "got other values under xxx"),
    ):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(CheckpointError, match=message) as error:
            read_checkpoint(tmp_path / "a.pth")
        assert_one_line(error)


def test_entries_and_elements_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state_dict = small_model().state_dict()
    torch.save(state_dict, tmp_path / "a.pth")
    save_file(state_dict, tmp_path / "a.safetensors")
    for name in ("MAX_TENSORS", "MAX_PARAMETERS"):
        with monkeypatch.context() as patch:
            patch.setattr(limits, name, 100)
            for path in (tmp_path / "a.pth", tmp_path / "a.safetensors"):
                with pytest.raises(CheckpointError, match=f"expected at most 100 .mobilevit_fast.limits.{name}"):
                    read_checkpoint(path)
    # Four bytes of memory that claim to be gigabytes.
    torch.save(state_dict | {"classifier.bias": torch.zeros(1).expand(2**30)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="elements of all tensors: expected at most 67,108,864"):
        read_checkpoint(tmp_path / "a.pth")


def test_an_archive_that_is_larger_inside(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "whole.pth")
    with (
        zipfile.ZipFile(tmp_path / "whole.pth") as source,
        zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for entry in source.infolist():
            data = bytes(64 << 20) if entry.filename.endswith("data/0") else source.read(entry)
            target.writestr(entry.filename, data)
    assert (tmp_path / "a.pth").stat().st_size < 100_000
    with pytest.raises(CheckpointError, match="expected a complete PyTorch file"):
        read_checkpoint(tmp_path / "a.pth")


def header_only(described: object) -> bytes:
    text = json.dumps(described).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}, "MAX_PARAMETERS"),
        ({"x": {"dtype": "F32", "shape": [2**20], "data_offsets": [0, 2**22]}}, "expected [0-9,]+ bytes, got"),
        ({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, "does not fit data_offsets"),
        ({"x": {"dtype": "F32", "shape": [1] * 9, "data_offsets": [0, 4]}}, "shape to be up to 8 whole numbers"),
        ({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, "shape to be up to 8 whole numbers"),
        ({"x": {"dtype": "F32", "shape": [2**61, 2**61, 0], "data_offsets": [0, 0]}}, "a shape that a tensor can have"),
        ({"x": {"dtype": "F32", "shape": [0, 2**70], "data_offsets": [0, 0]}}, "shape to be up to 8 whole numbers"),
        ({"x": {"dtype": "F8_E4M3", "shape": [0], "data_offsets": [0, 0]}}, "expected a type among .* got F8_E4M3"),
        ({"x": {"dtype": "F32", "shape": [0], "data_offsets": [4, 4]}}, "x begins at byte 4"),
        ({"x": 5}, "x: expected dtype, shape and data_offsets, got int"),
        ({"__metadata__": {"a": 1}}, "expected metadata of texts"),
        ({"__metadata__": {"mobilevit_config": "{"}}, "not a MobileViT"),
    ],
)
@pytest.mark.parametrize("mmap", [False, True])
def test_headers_of_safetensors(tmp_path: Path, described: object, message: str, mmap: bool) -> None:
    (tmp_path / "a.safetensors").write_bytes(header_only(described))
    with pytest.raises(CheckpointError, match=message) as error:
        read_checkpoint(tmp_path / "a.safetensors", mmap=mmap)
    assert_one_line(error)


def quantised() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)


UNUSUAL: dict[str, Callable[[], torch.Tensor]] = {
    r"a sparse one \(sparse_coo\)": lambda: torch.eye(3).to_sparse(),
    r"a sparse one \(sparse_csr\)": lambda: torch.eye(3).to_sparse_csr(),
    r"one without values \(on the device meta\)": lambda: torch.zeros(3, device="meta"),
    "a nested one": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    r"a quantised one \(torch.qint8\)": quantised,
    r"one of torch\.float8_e4m3fn": lambda: torch.zeros(3).to(torch.float8_e4m3fn),
    r"one of torch\.complex64": lambda: torch.zeros(3, dtype=torch.complex64),
}


@pytest.mark.filterwarnings("ignore")  # of sparse, nested and quantised tensors: beta, prototype, deprecated
@pytest.mark.parametrize("got", UNUSUAL)
def test_tensors_that_no_model_holds(tmp_path: Path, got: str) -> None:
    model, tensor = small_model(), UNUSUAL[got]()
    state_dict = model.state_dict() | {"classifier.bias": tensor}
    message = rf"classifier\.bias: expected a dense tensor of float64, float32, float16, bfloat16 .* got {got}"
    with pytest.raises(CheckpointError, match=message):
        mvf.checkpoints.load_weights(model, state_dict)
    torch.save(state_dict, tmp_path / "a.pth")
    # What torch.load itself refuses, it refuses as something that is not just tensors.
    with pytest.raises(
        CheckpointError, match=rf"{message}|expected a file of tensors only|damaged or foreign"
    ) as error:
        read_checkpoint(tmp_path / "a.pth")
    assert_one_line(error)


def test_a_pickle_that_would_run_code(tmp_path: Path) -> None:
    class Dangerous:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(tmp_path / "made"), "w"))

    (tmp_path / "a.pth").write_bytes(pickle.dumps({"x": Dangerous()}, protocol=2))
    with pytest.raises(CheckpointError, match=r"expected a (file of tensors only|complete PyTorch file)"):
        read_checkpoint(tmp_path / "a.pth")
    assert not (tmp_path / "made").exists()


def test_export_of_a_configuration_with_endless_images(tmp_path: Path) -> None:
    model = small_model()
    model.config.image_size = [2**20, 2**20]
    with pytest.raises(ValueError, match=r"image_size: expected at most .*MAX_PIXELS"):
        mvf.export_onnx(model, tmp_path / "a.onnx")


def test_limits_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in limits.NAMES:
        monkeypatch.setattr(limits, name, getattr(limits, name))  # put back afterwards
    limits.set_limit("MAX_CLASSES", 3)
    with pytest.raises(ValueError, match=r"num_labels: expected at most 3 .*MAX_CLASSES"):
        mvf.MobileViTConfig(num_labels=4)
    with pytest.raises(ValueError, match=r"expected the name of a limit, one of MAX_PIXELS, .* got 'MAX_FUN'"):
        limits.set_limit("MAX_FUN", 3)
    limits.set_limit("MAX_CLASSES", 10)

    write_checkpoint(small_model(), tmp_path, processor=MobileViTImageProcessor(size=30, crop_size=32))
    (tmp_path / "wide.png").write_bytes(wide_png(20_000))
    Image.new("RGB", (40, 40)).save(tmp_path / "good.png")
    arguments = ["classify", str(tmp_path), "--json", "--model", str(tmp_path)]
    for options, failed in (([], 1), (["--set-limit", "MAX_PIXELS=20000000"], 0)):
        result = CliRunner().invoke(app, [*options, *arguments])
        assert result.exit_code == failed
        assert json.loads(result.stdout)["summary"]["failed"] == failed
        assert json.loads(result.stdout)["images"][0]["predictions"]  # of the good one in either case
    for wrong in ("MAX_FUN=3", "MAX_PIXELS", "MAX_PIXELS=x", "MAX_PIXELS=0"):
        result = CliRunner().invoke(app, ["--set-limit", wrong, *arguments])
        assert result.exit_code == 2
        assert "--set-limit: expected NAME=NUMBER" in result.stderr
