"""`mobilevit-fast bench-engine`: stages alone and together, and whether both kinds of preprocessing agree."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from mobilevit_fast.cli import app
from mobilevit_fast.engine import Engine, benchmark
from mobilevit_fast.engine.benchmark import Agreement, agreement, exactness, first_of
from mobilevit_fast.images import MobileViTImageProcessor
from tests.cli.test_predict import hide
from tests.engine.engines import KEEPING, PROCESSOR
from tests.engine.pictures import encoded, every_kind, picture
from tests.integrations import zoo


def bench(*arguments: object, input: str | None = None) -> Result:
    return CliRunner().invoke(app, ["bench-engine", *map(str, arguments)], input=input)


def test_stages_are_measured(classifier: Path, photos: Path, tmp_path: Path) -> None:
    plot = tmp_path / "stages.svg"
    arguments = [photos, "--model", classifier, "--seconds", 0.1, "--batch-size", 2]
    result = bench(*arguments, "--json", "--plot", plot)
    values = json.loads(result.stdout)
    assert (values["images"], values["failed"]) == (6, 0)
    assert set(values["alone"]) == {"read", "decode", "resize", "forward"}
    slowest = min(values["alone"], key=lambda name: values["alone"][name]["images_per_second"])
    assert values["bound_by"] == slowest
    assert values["together"]["images_per_second"] > 0
    assert values["exact_has_the_processors_pixels"] == 1.0
    assert values["fast_agrees_with_exact"] == 1.0  # none of the photos is twice as large as the resize asks for
    assert b"<svg" in plot.read_bytes()
    table = bench(*arguments, "--preprocessing", "fast")
    assert table.exit_code == 0
    assert "together / slowest alone (" in table.stdout
    assert "the image processor's own pixels, to the bit, by exact preprocessing: 100.0 % of 6 images" in table.stdout
    assert "the same class by exact and fast preprocessing: 100.0 % of 6 images" in table.stdout


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_images_without_a_size_of_their_own_are_measured_like_others(mode: str) -> None:
    processor = MobileViTImageProcessor(size={"shortest_edge": 64}, do_center_crop=False)
    engine = Engine(Counted(), processor, (4,), 1, preprocessing=mode, acceleration=False)
    contents = [encoded(picture(70, 80 if number % 5 else 100)) for number in range(10)]
    rates = benchmark.measure(engine, contents, seconds=0.01)
    assert set(rates.alone) == {"read", "decode", "resize", "forward"}
    assert rates.bound_by == "forward"
    shapes = engine.model.module.shapes
    assert {shape[0] for shape in shapes if shape[3] > 80} == {1}  # one of each five, in batches of four
    assert rates.alone["forward"].images_per_second == pytest.approx(1 / Counted.SECONDS, rel=0.3)


class Counted(nn.Module):
    """A model that takes as long for every image."""

    SECONDS = 0.02

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.shapes: list[torch.Size] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(x.shape)
        time.sleep(self.SECONDS * len(x))
        return x.mean(dim=(2, 3))


def test_sources_are_read_once_and_as_many_answered_as_measured(
    classifier: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "MAX_IMAGES", 4)
    answered = []
    stream = Engine.stream

    def counted(self: Engine, sources: list, **options: object) -> object:
        answered.append(len(sources))
        return stream(self, sources, **options)

    monkeypatch.setattr(Engine, "stream", counted)
    lines = "".join(f"{path}\n" for path in sorted(photos.glob("*.*")) if path.suffix != ".txt" and path.name[0] != ".")
    lines += f"{photos}/more/e.webp\n{photos}/more/f.png\n"
    result = bench("-", "--model", classifier, "--seconds", 0.01, "--json", input=lines)
    values = json.loads(result.stdout)
    assert (values["images"], values["fast_agrees_with_exact"], answered) == (4, 1.0, [4, 4])


class Brightness(nn.Module):
    """The first of two classes for bright images, or the other way round from some brightness on."""

    def __init__(self, turned: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.turned = turned

    def forward(self, x: Tensor) -> Tensor:
        bright = x.mean(dim=(1, 2, 3)) - 0.5  # (N, 3, height, width) -> (N,)
        bright = torch.where(bright + 0.5 > self.turned, -bright, bright)
        return torch.stack([bright, -bright], dim=1)


def test_agreement_counts_what_both_answer() -> None:
    one, other = (Engine(Brightness(turned), KEEPING, acceleration=False) for turned in (2.0, 0.8))
    images = [np.full((64, 64, 3), value, np.uint8) for value in (20, 150, 250)]
    assert agreement(one, other, [*images, b"no image"]) == Agreement(2, 3)
    nothing = agreement(one, other, [b"no image"])
    assert (nothing, nothing.share) == (Agreement(0, 0), None)


@pytest.mark.filterwarnings("ignore:.* rescaled once more")  # of the file of fractions
def test_exactness_is_that_of_every_bit() -> None:
    engine = Engine(zoo.SMALL["native"](), PROCESSOR)
    sources = first_of([*every_kind().values(), b"no image"])
    assert exactness(engine, PROCESSOR, sources) == Agreement(len(sources) - 1, len(sources) - 1)
    other = MobileViTImageProcessor(size={"shortest_edge": 72}, crop_size=64, resample=2)
    assert exactness(engine, other, first_of([encoded(picture(200, 300))])) == Agreement(0, 1)


def test_what_is_measured_without_other_packages(
    classifier: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, "matplotlib")
    monkeypatch.setattr("mobilevit_fast.cli.bench_engine.has_simplejpeg", lambda: False)
    arguments = [photos, "--model", classifier, "--seconds", 0.01]
    assert "pip install simplejpeg" in bench(*arguments).stderr
    result = bench(*arguments, "--plot", tmp_path / "stages.svg")
    assert result.exit_code == 1
    assert "--plot: expected the package matplotlib, which is not installed (pip install matplotlib)" in result.stderr


def test_nothing_to_measure_is_an_error(classifier: Path, tmp_path: Path) -> None:
    result = bench(tmp_path / "none.jpg", "--model", classifier)
    assert result.exit_code == 1
    assert "expected images to measure with" in result.stderr
    assert os.listdir(tmp_path) == []
