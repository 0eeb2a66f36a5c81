"""preprocessor_config.json, ours and transformers'."""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL.Image import Resampling

from mobilevit_fast.files import hub
from mobilevit_fast.images import MobileViTFeatureExtractor, MobileViTImageProcessor
from testing.paths import UCMERCED, needs_ucmerced
from testing.peers import import_transformers
from tests.images.pictures import assert_identical, peer, picture

FILE = "preprocessor_config.json"
OPTIONS: list[dict[str, Any]] = [
    {},
    {"size": 30, "crop_size": 25, "resample": Resampling.BILINEAR, "do_flip_channel_order": False},
    {
        "size": {"height": 20, "width": 30},
        "do_center_crop": False,
        "do_rescale": False,
        "do_convert_rgb": True,
    },
    {
        "size": 18,
        "default_to_square": True,
        "do_reduce_labels": True,
        "rescale_factor": 0.5,
        "crop_size": (9, 12),
    },
    {
        "do_resize": False,
        "image_mean": 0.5,
        "image_std": [0.1, 0.2, 0.3],
        "input_data_format": "channels_first",
    },
]


@pytest.mark.parametrize("options", OPTIONS)
def test_round_trip(options: dict[str, Any], tmp_path: Path) -> None:
    processor = MobileViTImageProcessor(**options)
    path = processor.save_pretrained(tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / FILE
    for source in (path, path.parent, str(path.parent)):
        again = MobileViTImageProcessor.from_pretrained(source)
        assert again.settings == processor.settings
        assert again.to_dict() == processor.to_dict()
    assert MobileViTImageProcessor.from_dict(processor.to_dict()).settings == processor.settings


@pytest.mark.parametrize("options", OPTIONS)
def test_transformers_reads_ours(options: dict[str, Any], tmp_path: Path) -> None:
    ours = MobileViTImageProcessor(**options)
    ours.save_pretrained(tmp_path)
    theirs = import_transformers().AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    assert type(theirs) is type(peer())
    image = picture(40, 50)
    assert_identical(ours(image).pixel_values, theirs(image, return_tensors="np")["pixel_values"])


@pytest.mark.parametrize("options", OPTIONS)
def test_we_read_transformers(options: dict[str, Any], tmp_path: Path) -> None:
    theirs = peer(**options)
    theirs.save_pretrained(tmp_path)
    ours = MobileViTImageProcessor.from_pretrained(tmp_path)
    assert ours.settings == MobileViTImageProcessor(**options).settings
    image = picture(40, 50)
    assert_identical(ours(image).pixel_values, theirs(image, return_tensors="np")["pixel_values"])


def test_configuration_of_the_first_checkpoints(tmp_path: Path) -> None:
    older = {
        "crop_size": 256,
        "do_center_crop": True,
        "do_flip_channel_order": True,
        "do_resize": True,
        "feature_extractor_type": "MobileViTFeatureExtractor",
        "reduce_labels": True,
        "resample": 2,
        "size": 288,
        "image_mean": None,
        "invented_key": {"kept": [1, 2]},
    }
    (tmp_path / FILE).write_text(json.dumps(older))
    processor = MobileViTFeatureExtractor.from_pretrained(tmp_path)
    assert processor.size == {"shortest_edge": 288}
    assert processor.crop_size == {"height": 256, "width": 256}
    assert processor.resample is Resampling.BILINEAR
    assert processor.do_reduce_labels is True
    assert processor.image_mean == (0.5, 0.5, 0.5)
    saved = json.loads(processor.save_pretrained(tmp_path).read_text())
    assert saved["invented_key"] == {"kept": [1, 2]}
    assert saved["image_processor_type"] == "MobileViTImageProcessor"
    assert not {"feature_extractor_type", "reduce_labels"} & saved.keys()
    image = picture(300, 400)
    theirs = peer(crop_size=256, resample=2, size=288)(image, return_tensors="np")
    assert_identical(processor(image).pixel_values, theirs["pixel_values"])


def test_new_name_wins_over_the_older() -> None:
    values = {"reduce_labels": True, "do_reduce_labels": False}
    assert MobileViTImageProcessor.from_dict(values).do_reduce_labels is False


def test_overrides(tmp_path: Path) -> None:
    MobileViTImageProcessor(size=30).save_pretrained(tmp_path)
    processor = MobileViTImageProcessor.from_pretrained(tmp_path, size=12, do_rescale=False)
    assert (processor.size, processor.do_rescale) == ({"shortest_edge": 12}, False)
    with pytest.raises(TypeError, match="unknown keyword 'sise'; expected any of"):
        MobileViTImageProcessor.from_pretrained(tmp_path, sise=3)


@needs_ucmerced
def test_trained_checkpoint() -> None:
    assert UCMERCED is not None
    processor = MobileViTImageProcessor.from_pretrained(UCMERCED / "hf")
    assert processor.size == {"height": 256, "width": 256}
    assert (processor.do_normalize, processor.do_flip_channel_order, processor.do_center_crop) == (
        True,
        False,
        False,
    )
    assert processor.image_mean == (0.485, 0.456, 0.406)


def test_folder_without_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=f"expected a file {FILE} in .*{tmp_path.name}, got none"):
        MobileViTImageProcessor.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected a JSON file, got one that fails with"),
        ("[1]", "expected a JSON object, got list"),
        ('{"size": "large"}', "size: expected an int, a pair .* got 'large'"),
        (
            '{"image_processor_type": "ViTImageProcessor"}',
            "expected the configuration of a MobileViT.*'ViTImage",
        ),
    ],
)
def test_unusable_files(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError, match=f"{FILE}: {message}") as caught:
        MobileViTImageProcessor.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / FILE).write_bytes(b"\xff\xfe{}")
    with pytest.raises(ValueError, match=f"{FILE}: expected a JSON file"):
        MobileViTImageProcessor.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["nobody/nothing", "no/such/folder", "./missing"])
def test_not_on_the_hub_either(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        OSError, match=f"^{name}: expected a folder, a JSON file or the id .*{FILE}; the hub gave: ."
    ) as caught:
        MobileViTImageProcessor.from_pretrained(name, cache_dir=tmp_path, local_files_only=True)
    assert "\n" not in str(caught.value)


def test_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = MobileViTImageProcessor(size=33).save_pretrained(tmp_path)
    calls = []

    def download(repo_id: str, filename: str, **options: Any) -> str:
        calls.append((repo_id, filename, options))
        return str(path)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    processor = MobileViTImageProcessor.from_pretrained(
        "someone/something", revision="v1", token="t", cache_dir="here", local_files_only=True
    )
    assert processor.size == {"shortest_edge": 33}
    options = {"revision": "v1", "token": "t", "cache_dir": Path("here"), "local_files_only": True}
    assert calls == [("someone/something", FILE, options)]

    def no_connection(*args: Any, **options: Any) -> str:
        raise LocalEntryNotFoundError("no connection\n\nand nothing cached")

    monkeypatch.setattr(hub, "hf_hub_download", no_connection)
    with pytest.raises(OSError, match=r"^someone/something: .*the hub gave: no connection$"):
        MobileViTImageProcessor.from_pretrained("someone/something")


def test_attributes() -> None:
    processor = MobileViTImageProcessor()
    assert processor.size == {"shortest_edge": 224}
    processor.size = (20, 30)
    processor.do_center_crop = False
    assert processor(picture(40, 50)).pixel_values.shape == (1, 3, 20, 30)
    with pytest.raises(AttributeError, match="MobileViTImageProcessor has no attribute 'sise'"):
        processor.sise  # noqa: B018
    assert MobileViTImageProcessor(do_resize=None, size=None).to_dict() == MobileViTImageProcessor().to_dict()
    assert json.loads(repr(processor).removeprefix("MobileViTImageProcessor ")) == processor.to_dict()


def test_processors_do_not_share_settings() -> None:
    one, other = MobileViTImageProcessor(), MobileViTImageProcessor()
    one.size["shortest_edge"] = 20
    assert other.size == {"shortest_edge": 224}
    assert one(picture(40, 50), do_center_crop=False).pixel_values.shape == (1, 3, 20, 25)


def test_copy_and_pickle() -> None:
    processor = MobileViTImageProcessor(size=20, crop_size=16)
    image = picture(30, 50)
    for again in (copy.copy(processor), copy.deepcopy(processor), pickle.loads(pickle.dumps(processor))):
        assert torch.equal(again(image).pixel_values, processor(image).pixel_values)


def test_older_name() -> None:
    assert MobileViTFeatureExtractor is MobileViTImageProcessor


def test_a_kind_of_processor_with_an_endless_name(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps({"image_processor_type": "x\n" * 5000}))
    with pytest.raises(ValueError, match="expected the configuration of a MobileViTImageProcessor") as caught:
        MobileViTImageProcessor.from_pretrained(tmp_path)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)
