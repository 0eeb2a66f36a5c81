"""Labels of photos from a table: names before indices, and nothing that could mean two things."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from mobilevit_fast.checkpoints import load_model, write_checkpoint
from mobilevit_fast.cli import app
from mobilevit_fast.cli.labels import Labels
from mobilevit_fast.cli.photos import Photo, collect
from mobilevit_fast.images import MobileViTImageProcessor

NUMBERED = {0: "10", 1: "20", 2: "cat", 3: "1"}
MANY = {index: f"class {index}" for index in range(30)} | {3: "20"}


def photos(*names: str) -> list[Photo]:
    return [Photo(Path(name), (name,)) for name in names]


def read(tmp_path: Path, id2label: Mapping[int, str], *labels: str) -> list[int | None]:
    """The classes that a table of these labels gives to as many photos."""
    names = [f"{index}.png" for index in range(len(labels))]
    table = tmp_path / "labels.csv"
    table.write_text("image,label\n" + "".join(f"{name},{label}\n" for name, label in zip(names, labels, strict=True)))
    found = Labels(table, id2label, photos(*names))
    return [found.of(photo) for photo in photos(*names)]


def test_a_class_whose_name_is_a_number(tmp_path: Path) -> None:
    assert read(tmp_path, MANY, "20", "class 5") == [3, 5]
    assert read(tmp_path, NUMBERED, "20", "10", "1") == [1, 0, 3]
    assert read(tmp_path, NUMBERED, "0", "2") == [0, 2]  # no names: indices
    assert read(tmp_path, {0: "0", 1: "1"}, "0", "1") == [0, 1]  # the same either way
    assert read(tmp_path, {0: "cat", 1: "dog"}, "1", "cat") == [1, 0]


def test_a_table_that_mixes_both_is_refused_where_it_matters(tmp_path: Path) -> None:
    assert read(tmp_path, NUMBERED, "0", "20") == [0, 1]  # 20 is no index
    with pytest.raises(ValueError, match="line 3: expected one class, got '1', which is the name of class 3 and the"):
        read(tmp_path, NUMBERED, "0", "1")
    with pytest.raises(ValueError, match="line 2: expected one class, got '20', which is the name of class 3"):
        read(tmp_path, MANY, "20", "7")


def test_two_classes_of_one_name(tmp_path: Path) -> None:
    assert read(tmp_path, {0: "cat", 1: "cat", 2: "dog"}, "dog", "1") == [2, 1]
    with pytest.raises(ValueError, match="line 2: expected a label of the model's 3 classes, got 'cat'"):
        read(tmp_path, {0: "cat", 1: "cat", 2: "dog"}, "cat")


def test_numbers_that_are_none(tmp_path: Path) -> None:
    for label in ("9" * 5000, "-1", "1.0", "²"):
        with pytest.raises(ValueError, match="line 2: expected a label of the model's 4 classes") as error:
            read(tmp_path, NUMBERED, label)
        assert len(str(error.value)) < 500


def test_columns_with_line_breaks_in_their_names(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text('image,"la\nbel"\na.png,1\n')
    with pytest.raises(ValueError, match=r"expected columns image and label, got image, la bel$"):
        Labels(tmp_path / "labels.csv", NUMBERED, [])


@pytest.mark.parametrize("columns", ["image,label,label", "image,image,label", "label,other"])
def test_columns_that_are_not_there_once(tmp_path: Path, columns: str) -> None:
    (tmp_path / "labels.csv").write_text(f"{columns}\na.png,1,2\n")
    with pytest.raises(ValueError, match=r"expected columns image and label, got " + columns.replace(",", ", ")):
        Labels(tmp_path / "labels.csv", NUMBERED, [])


def test_paths_in_other_spellings(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("x.png", "a/y.png", "a/z.png"):
        Image.new("RGB", (70, 70)).save(tmp_path / name)
    table = tmp_path / "labels.csv"
    table.write_text(f"image,label\n./x.png,cat\n.//a/./y.png,10\n{tmp_path}/./a//z.png,20\n,1\n")
    found = collect([tmp_path])[0]
    labels = Labels(table, NUMBERED, found)
    assert [labels.of(photo) for photo in found] == [2, 0, 1]
    table.write_text("image,label\n./x.png,cat\nx.png,10\n")
    with pytest.raises(ValueError, match=r"line 3: a second label for 'x\.png'"):
        Labels(table, NUMBERED, found)


def test_one_name_for_two_photos(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (70, 70)).save(tmp_path / folder / "x.png")
    table = tmp_path / "labels.csv"
    both, apart = collect([tmp_path])[0], collect([tmp_path / "a", tmp_path / "b"])[0]
    table.write_text("image,label\nx.png,cat\n")
    for found in (both, apart):
        with pytest.raises(ValueError, match=r"line 2: expected the name of one image, got 'x\.png', which is that of"):
            Labels(table, NUMBERED, found)
    assert Labels(table, NUMBERED, apart[:1]).of(apart[0]) == 2
    table.write_text("image,label\nx.png,cat\na/x.png,10\n")  # the bare name is that of one photo alone
    labels = Labels(table, NUMBERED, both)
    assert [labels.of(photo) for photo in both] == [0, 2]


def test_two_names_for_one_photo(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("RGB", (70, 70)).save(tmp_path / "a" / "x.png")
    table = tmp_path / "labels.csv"
    found = collect([tmp_path])[0]
    for rows in ("a/x.png,cat\nx.png,10\n", "x.png,10\na/x.png,cat\n", f"a/x.png,10\n{tmp_path}/a/x.png,cat\n"):
        table.write_text(f"image,label\n{rows}")
        with pytest.raises(ValueError, match=r"line \d: expected one class of \S+/a/x\.png, got '\w+' for '") as error:
            Labels(table, NUMBERED, found)
        assert "\n" not in str(error.value)
    table.write_text("image,label\na/x.png,cat\nx.png,cat\n")
    assert Labels(table, NUMBERED, found).of(found[0]) == 2
    table.write_text("image,label\na/x.png,cat\nb/x.png,10\n")  # the latter is another photo, of another time
    assert Labels(table, NUMBERED, found).of(found[0]) == 2


def test_the_accuracy_of_a_model_with_such_a_class(classifier: Path, tmp_path: Path) -> None:
    Image.new("RGB", (70, 70)).save(tmp_path / "x.png")
    arguments = ["classify", str(tmp_path / "x.png"), "--json", "--model"]
    answer = json.loads(CliRunner().invoke(app, [*arguments, str(classifier)]).stdout)["images"][0]
    predicted = answer["predictions"][0]["index"]
    model = load_model(classifier)
    model.config.id2label = {index: str((index + 1) % 4) for index in range(4)}
    model.config.label2id = {name: index for index, name in model.config.id2label.items()}
    write_checkpoint(model, tmp_path / "model", processor=MobileViTImageProcessor.from_pretrained(classifier))
    (tmp_path / "labels.csv").write_text(f"image,label\nx.png,{model.config.id2label[predicted]}\n")
    options = ["--labels", str(tmp_path / "labels.csv")]
    result = CliRunner().invoke(app, [*arguments, str(tmp_path / "model"), *options])
    assert json.loads(result.stdout)["summary"]["accuracy"] == 1
