"""`mobilevit-fast classify` on more images than anybody reads lines of."""

import json
import shutil
from pathlib import Path

import pytest

from mobilevit_fast.cli.photos import Photo
from mobilevit_fast.cli.predictions import MAX_LINES, Answer, Results
from tests.cli.test_errors import run


def copies(photo: Path, number: int, folder: Path) -> Path:
    folder.mkdir()
    for i in range(number):
        shutil.copy(photo, folder / f"photo{i:03}{photo.suffix}")
    return folder


@pytest.mark.parametrize("number", [MAX_LINES, MAX_LINES + 1])
def test_many_images_are_a_summary(number: int, classifier: Path, photos: Path, tmp_path: Path) -> None:
    folder = copies(photos / "a.jpg", number, tmp_path / "many")
    (folder / "broken.png").write_bytes(b"no image")
    shown = run("classify", folder, "--model", classifier)
    assert shown.exit_code == 1
    assert f"{folder / 'broken.png'}" in shown.stderr
    text = shown.stdout.replace("\n", "")
    named = {i for i in range(number) if f"photo{i:03}" in text}
    if number <= MAX_LINES:
        assert named == set(range(number))
        assert "least certain" not in text
    else:
        assert set(range(10)) <= named
        assert len(named) <= 20
        assert f"{number} images" in text
        assert "--json" in text
    values = json.loads(run("classify", folder, "--model", classifier, "--json").stdout)
    assert len(values["images"]) == number + 1


def test_the_summary_counts_and_finds_the_least_certain() -> None:
    shares = [0.9 - 0.01 * i for i in range(60)]
    answers = [
        Answer(Photo(Path(f"photo{i:02}.png"), ()), ((i % 12, share), (12, 1 - share)))
        for i, share in enumerate(shares)
    ]
    answers.append(Answer(Photo(Path("broken.png"), ()), error="no image"))
    summary, first, uncertain = Results({i: f"class {i}" for i in range(13)}, answers=answers).to_tables()
    classes, images, means = (list(column.cells) for column in summary.columns)
    assert [str(name) for name in classes] == [*(f"class {i}" for i in range(10)), "2 other classes"]
    assert images == ["5"] * 10 + ["10"]
    assert means[0] == f"{100 * sum(shares[0::12]) / 5:.1f} %"
    assert [str(name) for name in first.columns[0].cells] == [f"photo{i:02}.png" for i in range(10)]
    assert [str(name) for name in uncertain.columns[0].cells] == [f"photo{i:02}.png" for i in range(59, 49, -1)]
