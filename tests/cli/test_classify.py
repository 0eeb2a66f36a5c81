"""`mobilevit-fast classify`: what is found, printed and refused."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from mobilevit_fast.checkpoints import load_model, write_checkpoint
from mobilevit_fast.cli import app
from mobilevit_fast.images import MobileViTImageProcessor
from testing.paths import UCMERCED, needs_ucmerced

NAMES = ["a.jpg", "b.png", "c.JPEG", "d.bmp", "more/e.webp", "more/f.png"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["classify", *map(str, arguments)])


def answers(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    return json.loads(result.stdout)


def assert_refused(result: Result, status: int, *words: str) -> None:
    """One line on stderr with these words, nothing on stdout."""
    assert result.exit_code == status
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr


def expected_probabilities(model: Path, photo: Path) -> torch.Tensor:
    pixel_values = MobileViTImageProcessor.from_pretrained(model)([photo])["pixel_values"]
    with torch.inference_mode():
        return load_model(model)(pixel_values).logits.softmax(-1)[0]


@pytest.mark.parametrize("accelerate", ["--accelerate", "--no-accelerate"])
def test_json_holds_what_the_model_says(classifier: Path, photos: Path, accelerate: str) -> None:
    values = answers(photos, "--model", classifier, "--top-k", 3, "--batch-size", 4, accelerate)
    assert [image["path"] for image in values["images"]] == [str(photos / name) for name in NAMES]
    for image in values["images"]:
        expected = expected_probabilities(classifier, Path(image["path"]))
        top = expected.topk(3)
        assert [one["index"] for one in image["predictions"]] == top.indices.tolist()
        assert [one["probability"] for one in image["predictions"]] == pytest.approx(top.values.tolist(), rel=1e-4)
        names = load_model(classifier).config.id2label
        assert [one["label"] for one in image["predictions"]] == [names[index] for index in top.indices.tolist()]
    assert values["summary"]["images"] == 6
    assert values["summary"]["failed"] == 0
    assert values["summary"]["seconds"] > 0
    assert "accuracy" not in values["summary"]


def test_the_table_names_every_photo(classifier: Path, photos: Path) -> None:
    result = run(photos, photos / "b.png", "--model", classifier)
    assert result.exit_code == 0
    assert result.stderr == ""
    for name in NAMES:
        assert result.stdout.count(f"/{name}") == 1
    assert "notes.txt" not in result.stdout
    assert "hidden" not in result.stdout
    assert result.stdout.count(" % ") == 6


def test_more_classes_than_there_are(classifier: Path, photos: Path) -> None:
    values = answers(photos / "a.jpg", "--model", classifier, "--top-k", 99)
    (image,) = values["images"]
    assert len(image["predictions"]) == 4
    assert sum(one["probability"] for one in image["predictions"]) == pytest.approx(1)
    result = run(photos / "a.jpg", "--model", classifier, "--top-k", 99)
    assert "[red]fox[/red]" in result.stdout  # names are no markup


def test_photos_of_several_sizes_without_crop(classifier: Path, photos: Path, tmp_path: Path) -> None:
    MobileViTImageProcessor(size={"shortest_edge": 64}, do_center_crop=False).save_pretrained(tmp_path)
    values = answers(photos, "--model", classifier, "--processor", tmp_path, "--no-accelerate")
    processor = MobileViTImageProcessor.from_pretrained(tmp_path)
    model = load_model(classifier)
    for image in values["images"]:
        with torch.inference_mode():
            expected = model(**processor([image["path"]])).logits.softmax(-1)[0]
        assert image["predictions"][0]["index"] == int(expected.argmax())
        assert image["predictions"][0]["probability"] == pytest.approx(float(expected.max()), rel=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_dtypes(classifier: Path, photos: Path, dtype: str) -> None:
    values = answers(photos, "--model", classifier, "--dtype", dtype, "--no-accelerate", "--top-k", 4)
    probabilities = {one["index"]: one["probability"] for one in values["images"][0]["predictions"]}
    expected = expected_probabilities(classifier, photos / "a.jpg")
    single = [probabilities[index] for index in range(4)]
    assert single == pytest.approx(expected.tolist(), abs=0.1)
    assert single != pytest.approx(expected.tolist(), abs=1e-7)


def write_labels(path: Path, rows: list[tuple[str, object]]) -> Path:
    path.write_text("image,label,class\n" + "".join(f"{image},{label},x\n" for image, label in rows))
    return path


def test_accuracy(classifier: Path, photos: Path, tmp_path: Path) -> None:
    values = answers(photos, "--model", classifier)
    predicted = [image["predictions"][0]["index"] for image in values["images"]]
    rows: list[tuple[str, object]] = [(name, index) for name, index in zip(NAMES, predicted, strict=True)]
    rows[1] = ("b.png", (predicted[1] + 1) % 4)
    rows[4] = ("e.webp", values["images"][4]["predictions"][0]["label"])  # bare name, and class by name
    del rows[3]
    table = write_labels(tmp_path / "labels.csv", rows)

    result = run(photos, "--model", classifier, "--labels", table)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "correct 4 of 5 (80.0 %)"
    values = answers(photos, "--model", classifier, "--labels", table)
    assert values["summary"] | {"seconds": 0} == {
        "images": 6,
        "failed": 0,
        "seconds": 0,
        "labelled": 5,
        "correct": 4,
        "accuracy": 0.8,
    }
    assert values["images"][1]["expected"]["index"] == rows[1][1]
    assert "expected" not in values["images"][3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected columns image and label, got an empty file"),
        ("file,label\na.jpg,1\n", "expected columns image and label, got file, label"),
        ("image,label\na.jpg,4\n", "line 2: expected a label of the model's 4 classes, got '4'"),
        ("image,label\na.jpg,bat\n", "got 'bat'"),
        ("image,label\na.jpg\n", "got ''"),
        ("image,label\na.jpg,1\na.jpg,2\n", "line 3: a second label for 'a.jpg'"),
        ("image,label\na.jpg,\udcff\n", "expected a CSV table in UTF-8"),
        ("image,label\nz.jpg,1\n", "expected labels of the images given, got none of them"),
    ],
)
def test_labels_that_make_no_sense(classifier: Path, photos: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(text, errors="surrogateescape")
    result = run(photos, "--model", classifier, "--labels", tmp_path / "labels.csv")
    assert_refused(result, 1, "labels.csv", message)


def test_missing_labels(classifier: Path, photos: Path) -> None:
    assert_refused(run(photos, "--model", classifier, "--labels", "/no/such.csv"), 1, "/no/such.csv")


def test_a_broken_photo_does_not_keep_others_waiting(classifier: Path, photos: Path) -> None:
    whole = (photos / "b.png").read_bytes()
    (photos / "b.png").write_bytes(whole[: len(whole) // 2])
    (photos / "c.JPEG").write_bytes(b"")
    result = run(photos, "/no/such.png", "--model", classifier, "--json")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    assert "/no/such.png: no such file or folder" in lines[0]
    assert str(photos / "b.png") in lines[1]
    assert str(photos / "c.JPEG") in lines[2]
    values = json.loads(result.stdout)
    assert [bool(image["predictions"]) for image in values["images"]] == [True, False, False, True, True, True]
    assert values["images"][1]["error"] in lines[1]
    assert values["summary"]["failed"] == 3
    table = run(photos, "--model", classifier)
    assert table.exit_code == 1
    assert "a.jpg" in table.stdout
    assert "b.png" not in table.stdout


def test_a_list_is_no_photo(classifier: Path, photos: Path, tmp_path: Path) -> None:
    """Nor do its photos take the place of those beside it."""
    table = tmp_path / "list.txt"
    table.write_text(f"{photos / 'a.jpg'}\n{photos / 'b.png'}\n", encoding="utf-8")
    result = run(table, photos / "b.png", "--model", classifier, "--json")
    assert result.exit_code == 1
    of_list, of_photo = json.loads(result.stdout)["images"]
    assert of_list["error"]
    (alone,) = json.loads(run(photos / "b.png", "--model", classifier, "--json").stdout)["images"]
    assert of_photo == alone


def test_only_broken_photos(classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no image")
    assert_refused(run(tmp_path, "--model", classifier), 1, "x.png", "expected an image")


def test_digits_are_the_default(classifier: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mobilevit_fast.data.digits_checkpoint", lambda: classifier)
    expected = answers(photos / "a.jpg", "--model", classifier)["images"]
    assert answers(photos / "a.jpg")["images"] == expected
    assert answers(photos / "a.jpg", "--model", "digits")["images"] == expected


def test_an_empty_folder(classifier: Path, tmp_path: Path) -> None:
    assert_refused(
        run(tmp_path, "--model", classifier), 1, str(tmp_path), "expected a folder with images", "found none"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dtype", "int8"], ["--dtype", "float32, bfloat16, float16", "'int8'"]),
        (["--device", "abacus"], ["--device", "'abacus'"]),
        (["--device", "meta"], ["--device", "'meta'"]),
        (["--device", "cuda:99"], ["--device", "'cuda:99'"]),
        (["--top-k", "0"], ["--top-k", "positive"]),
        (["--batch-size", "-1"], ["--batch-size", "positive"]),
    ],
)
def test_arguments_that_make_no_sense(classifier: Path, photos: Path, arguments: list[str], words: list[str]) -> None:
    assert_refused(run(photos, "--model", classifier, *arguments), 2, *words)


def test_unknown_options_are_usage_errors(photos: Path) -> None:
    result = run(photos, "--no-such-option")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: No such option: --no-such-option")
    assert line.endswith("classify --help lists what there is")
    result = run()
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: Missing argument 'paths'")


def test_checkpoints_that_cannot_be_used(
    classifier: Path, segmenter: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes((classifier / "model.safetensors").read_bytes()[:5000])
    foreign = tmp_path / "foreign.pt"
    torch.save({"fc.weight": torch.zeros(1)}, foreign)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    for model, words in (
        (truncated, ["truncated.safetensors", "expected a complete safetensors file"]),
        (foreign, ["foreign.pt", "not a MobileViT"]),
        (segmenter, ["expected a model for classification, got one for segmentation"]),
        (tmp_path / "nowhere", ["nowhere", "found nothing there"]),
        (photos, ["photos", "expected one of model.safetensors"]),
    ):
        assert_refused(run(photos, "--model", model), 1, *words)
    assert_refused(run(photos, "--model", classifier, "--processor", photos), 1, "preprocessor_config.json")


def test_a_hub_out_of_reach(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    from mobilevit_fast.files import hub

    def unreachable(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("no connection\nand more lines")

    monkeypatch.setattr(hub, "hf_hub_download", unreachable)
    assert_refused(run(photos, "--model", "someone/some-model"), 1, "someone/some-model", "cannot be reached")


@pytest.mark.parametrize(
    ("naming", "family"), [("cvnets", "Apple's checkpoints (BGR"), ("timm", "timm's checkpoints (RGB")]
)
def test_defaults_of_a_family_are_announced(
    classifier: Path, photos: Path, tmp_path: Path, naming: str, family: str
) -> None:
    write_checkpoint(load_model(classifier), tmp_path, naming=naming)
    result = run(photos / "a.jpg", "--model", tmp_path, "--json")
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert family in line
    assert "no preprocessor_config.json" in line
    settings = (
        {"size": {"shortest_edge": 96}, "resample": 2, "do_flip_channel_order": True}
        if naming == "cvnets"
        else {"size": {"shortest_edge": 71}, "resample": 3, "do_flip_channel_order": False}
    )
    pixel_values = MobileViTImageProcessor(**settings, crop_size=64)([photos / "a.jpg"])["pixel_values"]
    with torch.inference_mode():
        expected = load_model(classifier)(pixel_values).logits.softmax(-1).max()
    (image,) = json.loads(result.stdout)["images"]
    assert image["predictions"][0]["probability"] == pytest.approx(float(expected), rel=1e-4)


def test_as_a_program(classifier: Path, photos: Path) -> None:
    (photos / "broken.png").write_bytes(b"no image")
    command = [
        sys.executable,
        "-m",
        "mobilevit_fast.cli",
        "classify",
        str(photos),
        "--model",
        str(classifier),
        "--json",
    ]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert process.returncode == 1
    assert len(json.loads(process.stdout)["images"]) == 7
    (line,) = process.stderr.splitlines()
    assert "broken.png" in line


def test_transformers_is_not_imported(classifier: Path, photos: Path) -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from mobilevit_fast.cli import app; "
        f"result = CliRunner().invoke(app, ['classify', {str(photos)!r}, '--model', {str(classifier)!r}]); "
        "assert result.exit_code == 0, result.output; "
        "assert not {'transformers', 'timm', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


@needs_ucmerced
def test_trained_weights_and_real_photos(tmp_path: Path) -> None:
    assert UCMERCED is not None
    table = UCMERCED / "labels.csv"
    rows = table.read_text().splitlines()
    subset = tmp_path / "labels.csv"
    subset.write_text("\n".join([rows[0], *rows[1::30]]) + "\n")
    chosen = [UCMERCED / "images" / row.split(",")[0] for row in rows[1::30]]
    for model in ("hf", "cvnets/best_model.pth"):
        result = run(*chosen, "--model", UCMERCED / model, "--labels", subset, "--processor", UCMERCED / "hf")
        assert result.exit_code == 0
        assert result.stdout.splitlines()[-1] == "correct 7 of 7 (100.0 %)"
