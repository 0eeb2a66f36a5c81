"""The engine: the answers of image processor and model, to the bit, in order, whatever comes."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mobilevit_fast as mvf
from mobilevit_fast.engine import Engine, EngineError, Prediction
from mobilevit_fast.engine.sources import Source
from testing.pairs import tiny_config
from tests.engine.engines import CLASSIFIERS, PROCESSOR, expected_logits
from tests.engine.pictures import encoded, every_kind, picture, written
from tests.integrations import zoo

pytestmark = pytest.mark.filterwarnings("ignore:.* rescaled once more")  # of the file of fractions


def names(kind: str, **options: Any) -> Engine:
    return Engine(zoo.SMALL[kind](), PROCESSOR, **options)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return written(tmp_path, every_kind())


@pytest.mark.parametrize("batch_size", [1, 3, 8, 32])
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_logits_are_the_processors_and_the_models(kind: str, batch_size: int) -> None:
    engine = names(kind, batch_sizes=(batch_size,))
    contents = [*every_kind().values()]
    assert torch.equal(engine(contents), expected_logits(engine, contents))
    backwards = contents[::-1]
    assert torch.equal(engine(backwards), expected_logits(engine, backwards))


@pytest.mark.parametrize(
    "settings",
    [
        {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]},
        {"do_flip_channel_order": False, "resample": 2},
        {"do_rescale": False},
        {"do_convert_rgb": True, "crop_size": {"height": 48, "width": 80}},
        {"do_center_crop": False, "size": {"height": 64, "width": 96}},
        {"do_center_crop": False},
        {"do_resize": False, "crop_size": 64},
        {"crop_size": {"height": 100, "width": 90}},
    ],
    ids=str,
)
def test_every_setting_of_the_processor_counts(settings: dict) -> None:
    processor = mvf.MobileViTImageProcessor(**{"size": {"shortest_edge": 72}, "crop_size": 64, **settings})
    engine = Engine(zoo.SMALL["native"](), processor, batch_sizes=(4,))
    contents = [*every_kind().values()]
    assert torch.equal(engine(contents), expected_logits(engine, contents, processor))


def test_the_processor_of_transformers_does_not_normalize() -> None:
    class TheirProcessor:
        do_rescale = True
        do_normalize = True

        def to_dict(self) -> dict:
            return {**PROCESSOR.to_dict(), "do_normalize": True, "image_mean": 0.5, "image_std": 0.5}

        def preprocess(self) -> None:
            pass

    contents = [encoded(picture(70, 80))]
    normalizing = Engine(zoo.SMALL["native"](), TheirProcessor())
    assert normalizing.preprocessing.settings.do_normalize
    TheirProcessor.__module__ = "transformers.models.mobilevit.image_processing_mobilevit"
    engine = Engine(zoo.SMALL["native"](), TheirProcessor())
    assert not engine.preprocessing.settings.do_normalize
    assert torch.equal(engine(contents), expected_logits(engine, contents))


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 40])
def test_any_number_of_sources(count: int) -> None:
    engine = names("native", top_k=3)
    contents = [encoded(picture(64, 64 + i, i)) for i in range(count)]
    found = [*engine.stream(contents)]
    assert len(found) == count
    if count:
        probabilities = expected_logits(engine, contents).softmax(-1).topk(3)
        assert [one.indices for one in found] == [tuple(row) for row in probabilities.indices.tolist()]
        assert [one.scores for one in found] == [tuple(row) for row in probabilities.values.tolist()]
        labels = engine.model.module.config.id2label
        assert found[0].labels == tuple(labels[index] for index in found[0].indices)


def test_a_generator_is_answered_in_its_order(files: list[Path]) -> None:
    engine = names("native", batch_sizes=(2,), decode_threads=3)
    found = [*engine.stream(file for file in files)]
    assert [Path(one.source) for one in found] == files
    assert all(one.error is None for one in found)


def test_arrays_and_pictures_in_memory() -> None:
    engine = names("native")
    images = [picture(64, 80, i) for i in range(3)]
    arrays = [np.asarray(image) for image in images]
    batch = torch.stack([torch.from_numpy(array.copy()) for array in arrays])
    expected = expected_logits(engine, [encoded(image, "PNG") for image in images])
    for given in (images, arrays, batch, batch.permute(0, 3, 1, 2), batch.numpy()):
        assert torch.equal(engine(given), expected)


def test_broken_images_are_answers_with_errors(files: list[Path], tmp_path: Path) -> None:
    broken = written(tmp_path, {"broken.jpg": b"\xff\xd8\xffno", "empty.png": b"", "text.jpg": b"hello"})
    gone = tmp_path / "gone.jpg"
    engine = names("native", batch_sizes=(4,))
    mixed = [files[0], broken[0], gone, files[1], broken[1], files[2], broken[2]]
    found = [*engine.stream(mixed)]
    assert [one.error is None for one in found] == [True, False, False, True, False, True, False]
    for one in found:
        assert (one.error is None) == bool(one.labels)
        assert "\n" not in (one.error or "")
    alone = [next(iter(engine.stream([file]))) for file in files[:3]]
    assert [found[i] for i in (0, 3, 5)] == alone
    with pytest.raises(ValueError, match=r"broken\.jpg: expected"):
        engine(mixed)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("kind", "outputs"),
    [("native", ("label",)), ("native", ("logits",))]
    + [("native-segmentation", outputs) for outputs in (("mask",), ("logits",), ("logits", "mask"))],
)
def test_an_answer_that_is_no_number_is_an_error(kind: str, outputs: tuple[str, ...], value: float) -> None:
    model = zoo.SMALL[kind]()
    engine = Engine(model, PROCESSOR, outputs=outputs)
    with torch.no_grad():
        (model.classifier if kind == "native" else model.segmentation_head.classifier.convolution).bias.fill_(value)
    found = next(iter(engine.stream([encoded(picture(64, 64))])))
    assert found == Prediction(found.source, error="the model's answer is NaN or infinite")


def test_a_model_that_fails_for_one_image_answers_the_others() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            if (x > 0.99).all(dim=(1, 2, 3)).any():
                raise ValueError("too bright")
            return x.mean(dim=(2, 3))

    engine = Engine(Picky(), PROCESSOR, acceleration=False)
    white = np.full((64, 64, 3), 255, np.uint8)
    found = [*engine.stream([white // 2, white, white // 3])]
    assert [one.error for one in found] == [None, "too bright", None]


@pytest.mark.parametrize("kind", ["native-segmentation", "transformers-segmentation"])
def test_masks_are_the_processors(kind: str) -> None:
    engine = names(kind)
    contents = [*every_kind().values()][:4]
    with torch.inference_mode():
        outputs = engine.model.module(PROCESSOR(contents)["pixel_values"])
        expected = PROCESSOR.post_process_semantic_segmentation(outputs, target_sizes=[(64, 64)] * 4)
    for one, mask in zip(engine.stream(contents), expected, strict=True):
        assert one.labels == ()
        assert one.mask is not None
        assert one.mask.dtype == np.uint8
        np.testing.assert_array_equal(one.mask, mask.numpy())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"outputs": ("mask",)}, "expected label, score, embedding, logits of a classification model, got mask"),
        ({"outputs": ("class",)}, "expected some of label, score, embedding, logits, mask, got class"),
        ({"outputs": ()}, "got none"),
        ({"top_k": 0}, "top_k: expected a positive whole number, got 0"),
        ({"top_k": 1.5}, "top_k: expected a positive whole number, got 1.5"),
        ({"batch_sizes": ()}, "batch_sizes: expected at least one"),
        ({"batch_sizes": (0,)}, "batch_sizes: expected a positive whole number, got 0"),
        ({"decode_threads": -1}, "decode_threads: expected a positive whole number"),
        ({"decode_threads": 0}, "decode_threads: expected a positive whole number, got 0"),
        ({"preprocessing": "sloppy"}, "preprocessing: expected 'exact' or 'fast', got 'sloppy'"),
        ({"cuda_graphs": True}, "expected a model on a GPU"),
        ({"cuda_graphs": "yes"}, "cuda_graphs"),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_are_refused(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        names("native", **options)


def test_what_is_no_model_or_processor_is_refused() -> None:
    with pytest.raises(ValueError, match="Engine: expected a model on the CPU or on a GPU of CUDA, got one on meta"):
        Engine(zoo.SMALL["native"]().to("meta"), PROCESSOR)
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module, got int"):
        Engine(3, PROCESSOR)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected an image processor, got str"):
        Engine(zoo.SMALL["native"](), "processor")


def test_settings_of_acceleration_stay() -> None:
    model = mvf.accelerate(zoo.SMALL["native"](), include=["inverted_residual"])
    before = mvf.report(model)
    Engine(model, PROCESSOR)
    assert str(mvf.report(model)) == str(before)
    plain = zoo.SMALL["native"]()
    Engine(plain, PROCESSOR, acceleration=False)
    assert not any(region.fused for region in mvf.report(plain))


def engine_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("mobilevit_fast")]


def wait_for_threads_to_end() -> None:
    end = time.monotonic() + 10
    while engine_threads() and time.monotonic() < end:
        time.sleep(0.01)
    assert engine_threads() == []


def test_whoever_stops_early_leaves_no_threads() -> None:
    engine = names("native", batch_sizes=(2,))
    endless = (encoded(picture(64, 64, i % 5)) for i in range(10**9))
    stream = engine.stream(endless)
    for _ in range(5):
        next(stream)
    stream.close()
    wait_for_threads_to_end()


def test_an_error_of_the_sources_comes_after_the_answers_before_it() -> None:
    def sources() -> Iterator[bytes]:
        for i in range(5):
            yield encoded(picture(64, 64, i))
        raise KeyError("no more")

    found: list[Any] = []
    with pytest.raises(KeyError, match="no more"):
        found.extend(names("native", batch_sizes=(2,)).stream(sources()))
    assert len(found) == 5
    wait_for_threads_to_end()


def test_threads_of_the_program_keep_their_number_of_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        list(names("native").stream([encoded(picture(64, 64))]))
        inside: list[int] = []
        thread = threading.Thread(target=lambda: inside.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert [torch.get_num_threads(), *inside] == [2, 2]
    finally:
        torch.set_num_threads(before)


class Counting(nn.Module):
    """A model of nearly no work, which says how bright an image is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


def test_sources_are_not_read_far_ahead_of_their_answers() -> None:
    processor = mvf.MobileViTImageProcessor(do_resize=False, crop_size=8)
    engine = Engine(Counting(), processor, batch_sizes=(16,), acceleration=False, decode_threads=2)
    given = 0

    def sources() -> Iterator[np.ndarray]:
        nonlocal given
        for _ in range(10_000):
            given += 1
            yield np.zeros((8, 8, 3), np.uint8)

    for count, _ in enumerate(engine.stream(sources()), 1):
        assert given <= count + 16 * (engine.plan(None).slots + 1)
    assert count == 10_000


def test_a_run_ends_where_too_many_images_fail(tmp_path: Path) -> None:
    engine = names("native", batch_sizes=(1,))
    good, bad = written(tmp_path, {"a.png": encoded(picture(64, 64), "PNG"), "b.png": b"none"})
    with pytest.raises(EngineError, match="expected at most 0 images to fail, got 1"):
        engine.run([good, bad], tmp_path / "out", format="jsonl", max_errors=0)
    assert [row["source"] for row in mvf.engine.read_results(tmp_path / "out")] == [str(good), str(bad)]


def test_a_run_is_gone_on_with(tmp_path: Path) -> None:
    engine = names("native", top_k=2)
    paths = written(tmp_path, {f"{i}.png": encoded(picture(64, 64, i), "PNG") for i in range(6)})
    out = tmp_path / "out"
    first = engine.run(paths[:4], out, format="jsonl")
    assert (first.images, first.skipped, first.failed) == (4, 0, 0)
    again = engine.run(paths, out, format="jsonl")
    assert (again.images, again.skipped, again.failed) == (2, 4, 0)
    rows = {row["source"]: row for row in mvf.engine.read_results(out)}
    assert sorted(rows) == sorted(map(str, paths))
    for one in engine.stream(paths):
        assert rows[one.source]["label"] == list(one.labels)
        np.testing.assert_allclose(rows[one.source]["score"], one.scores, rtol=1e-6)
    other = Engine(zoo.native(tiny_config(num_labels=4)), PROCESSOR, top_k=2)
    with pytest.raises(ValueError, match="weights"):
        other.run(paths, out, format="jsonl")


def test_a_run_says_what_its_stages_did(tmp_path: Path) -> None:
    paths = written(tmp_path, {f"{i}.jpg": encoded(picture(200, 300, i)) for i in range(10)})
    made = names("native").run([*paths, tmp_path / "gone.jpg"], tmp_path / "out", format="csv")
    assert (made.images, made.failed) == (11, 1)
    assert made.stages["decode"]["images"] == 10
    assert made.stages["forward"]["images"] == 10
    assert 0 < made.images_per_second == pytest.approx(made.images / made.seconds, rel=1e-3)


def test_a_run_says_which_stage_bounds_it(tmp_path: Path) -> None:
    class Slow(Counting):
        def forward(self, x: Tensor) -> Tensor:
            end = time.thread_time() + 0.02 * len(x)
            while time.thread_time() < end:
                pass
            return super().forward(x)

    large = encoded(picture(1500, 2000), "PNG")
    small = np.zeros((64, 64, 3), np.uint8)
    for model, source, stage in ((Counting(), large, "decode"), (Slow(), small, "forward")):
        engine = Engine(model, PROCESSOR, acceleration=False, decode_threads=1)
        assert engine.run([source] * 4, tmp_path / stage, format="csv").bound_by == stage


def test_logits_have_a_row_for_each_image_however_often_it_comes(files: list[Path]) -> None:
    engine = names("native")
    one, other = files[0], files[1]
    given = [one, str(one), other, one]
    expected = torch.cat([engine([image]) for image in given])
    assert torch.equal(engine(given), expected)
    assert [prediction.source for prediction in engine.each(given)] == [*map(str, given)]


def test_a_table_is_no_image_where_every_image_has_a_row(files: list[Path], tmp_path: Path) -> None:
    table = tmp_path / "list.txt"
    table.write_text(f"{files[0]}\n{files[1]}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"list\.txt: expected an image"):
        names("native")([table])


def test_the_end_does_not_wait_for_a_source_that_never_comes(files: list[Path]) -> None:
    """Of a server that took the connection and says nothing."""
    released = threading.Event()

    def never() -> bytes:
        released.wait(60)
        return b""

    answered = names("native", batch_sizes=(1,)).stream([str(files[0]), Source("never", never)])
    next(answered)
    start = time.monotonic()
    try:
        answered.close()  # type: ignore[attr-defined]
        assert time.monotonic() - start < 20
    finally:
        released.set()


def test_names_of_classes_may_be_those_of_json() -> None:
    engine = names("native", id2label={str(number): f"class {number}" for number in range(10)})
    assert engine.model.label(3) == "class 3"
    for wrong in (["a", "b"], {"one": "a"}, {0: 1}):
        with pytest.raises(TypeError, match="id2label: expected"):
            names("native", id2label=wrong)
